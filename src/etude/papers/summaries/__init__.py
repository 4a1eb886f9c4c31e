"""One-line summaries of papers: extracted from the abstract, or written by a model and checked.

    extract             the default, without a model download: `extractive.py`, `model.py`
    summarise_missing   fills in missing and outdated summaries of a library: `missing.py`
    guard, writers      lines by a language model, checked against title and abstract

Every summary records how it was made; `described` (`origin.py`) returns this as text.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from etude.papers.summaries.extractive import Summary, extract
    from etude.papers.summaries.missing import summarise_missing, write
    from etude.papers.summaries.origin import described

_HOME = {
    "Summary": "extractive",
    "extract": "extractive",
    "described": "origin",
    "summarise_missing": "missing",
    "write": "missing",
}

__all__ = ["Summary", "described", "extract", "summarise_missing", "write"]


def __getattr__(name: str) -> Any:
    # Imported lazily, since extraction needs no database.
    if name in _HOME:
        return getattr(import_module(f"etude.papers.summaries.{_HOME[name]}"), name)
    raise AttributeError(name)
