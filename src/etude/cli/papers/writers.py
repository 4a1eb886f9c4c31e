"""Who writes summaries: the ranking model that comes with Etude, or a model that a person names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from etude.papers.library import Library


def writer_of(by: str, run: Path | None) -> Any:
    raise NotImplementedError(by, run)


def summarise(library: Library, writer: Any, most: int | None, say: Callable[[str], None]) -> int:
    from etude.papers.summaries import summarise_missing

    return summarise_missing(library, limit=most, writer=writer, show=say)
