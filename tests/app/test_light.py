"""Services are imported by every verb and page: importing them loads nothing heavy."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import etude.app


def test_services_import_neither_torch_nor_sqlalchemy():
    # The writer of summaries works on the texts of papers, and is imported when it is used.
    names = [
        module.name
        for module in pkgutil.walk_packages(etude.app.__path__, "etude.app.")
        if module.name != "etude.app.papers.writers"
    ]
    assert {"etude.app.tune", "etude.app.papers.reading"} <= set(names)
    heavy = ("torch", "sqlalchemy", "numpy", "transformers", "typer", "rich", "pydantic")
    code = (
        f"import importlib, sys\nfor name in {names!r}: importlib.import_module(name)\n"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
