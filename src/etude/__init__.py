"""Etude: study, practise and do fine-tuning of language models with LoRA and QLoRA.

Importing this package stays light: torch is imported when the first function that needs it runs.

    from etude import Recipe, load, tune

    run = tune(Recipe.read("docstrings"))
    print(load(run.folder).reply("def add(a, b): return a + b"))
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from etude.core.version import __version__

if TYPE_CHECKING:
    from etude.tuning.config.recipe import Recipe as Recipe
    from etude.tuning.pipeline import tune as tune
    from etude.tuning.predictor import load as load

__all__ = ["Recipe", "__version__", "load", "tune"]

_HOME = {
    "Recipe": "etude.tuning.config.recipe",
    "load": "etude.tuning.predictor",
    "tune": "etude.tuning.pipeline",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its module the first time it is asked for (PEP 562)."""
    if name in _HOME:
        from importlib import import_module

        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'etude' has no attribute {name!r}")
