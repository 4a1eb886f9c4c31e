"""A line about each paper: a sentence of its abstract, or what a model wrote and a guard let pass.

    extract             the default, without any model to fetch: `extractive.py`, `model.py`
    summarise_missing   the papers of a library that have none yet, or an outdated one: `missing.py`
    guard, writers      lines that a language model writes, checked against title and abstract

Every summary carries how it was made; `described` says it in words.
"""

from etude.papers.summaries.extractive import Summary, extract

__all__ = ["Summary", "extract"]
