"""A line about each paper: a sentence of its abstract, or what a model wrote and a guard let pass.

    extract             the default, without any model to fetch: `extractive.py`, `model.py`
    summarise_missing   the papers of a library that have none yet, or an outdated one: `missing.py`
    guard, writers      lines that a language model writes, checked against title and abstract

Every summary carries how it was made; `described` says it in words.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from etude.papers.summaries.extractive import Summary, extract
    from etude.papers.summaries.missing import described, summarise_missing, write

_HOME = {
    "Summary": "extractive",
    "extract": "extractive",
    "described": "missing",
    "summarise_missing": "missing",
    "write": "missing",
}

__all__ = ["Summary", "described", "extract", "summarise_missing", "write"]


def __getattr__(name: str) -> Any:
    # The database is not loaded for a sentence alone.
    if name in _HOME:
        return getattr(import_module(f"etude.papers.summaries.{_HOME[name]}"), name)
    raise AttributeError(name)
