"""Extras: what is said where one is missing, and that pyproject.toml and the lock agree."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))


@pytest.mark.parametrize(
    ("module", "line", "database", "extra"),
    [
        ("tantivy", "papers today", "", "papers"),
        ("sqlalchemy", "papers today", "", "papers"),
        ("sqlalchemy", "practice list", "", "practice"),
        ("psycopg", "practice stats", "postgresql://nobody@localhost/none", "postgres"),
        ("ray", "practice judge --ray auto", "", "ray"),
    ],
)
def test_a_missing_library_is_one_line_that_names_its_extra(
    tmp_path, module, line, database, extra
):
    # None in sys.modules is how Python itself marks a module that cannot be imported.
    code = f"import sys; sys.modules[{module!r}] = None\nfrom etude.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *line.split()],
        env={**os.environ, "ETUDE_HOME": str(tmp_path), "ETUDE_DATABASE": database},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    (only,) = done.stderr.splitlines()
    assert f"'{module}'" in only
    assert f"pip install 'etude[{extra}]'" in only


def test_all_has_every_extra_and_only_postgres_brings_its_driver(project):
    extras = project["project"]["optional-dependencies"]
    (everything,) = extras["all"]
    named = set(re.fullmatch(r"etude\[(.*)\]", everything)[1].split(","))
    assert named == set(extras) - {"all"}
    assert [extra for extra in extras if "psycopg" in " ".join(extras[extra])] == ["postgres"]


def test_the_lock_has_a_version_of_every_package_that_is_named(project):
    locked = {
        line.partition("==")[0].lower().replace("_", "-")
        for line in (REPOSITORY / "requirements.lock").read_text("utf-8").splitlines()
        if "==" in line
    }
    lists = [project["project"]["dependencies"]]
    lists += project["project"]["optional-dependencies"].values()
    lists += project["dependency-groups"].values()
    named = {
        re.match(r"[A-Za-z0-9-]+", entry)[0].lower()
        for entries in lists
        for entry in entries
        if isinstance(entry, str)
    }
    # PyTorch is pinned in the Makefile: which build is right depends on the machine.
    assert named - {"torch", "etude"} <= locked
