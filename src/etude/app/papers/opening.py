"""Opening the reading room: library, settings, reader and index, and reading what people type."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from etude.core.errors import PapersError

if TYPE_CHECKING:
    from etude.papers.library import Library
    from etude.papers.reader import Reader
    from etude.papers.search import Index
    from etude.papers.settings import Settings

Show = Callable[[str], None]
"""Called with one line that says what is being done, again and again while it lasts."""

EMPTY = "no papers yet: `etude papers sync` fetches the last days"


def show_nothing(text: str) -> None:
    """Be a `Show` for a caller that shows nothing."""


def open_library(*, with_papers: bool = False) -> Library:
    """Open the library of this installation.

    Args:
        with_papers: require that it has papers.

    Raises:
        PapersError: it is empty, and papers are required.
        StoreError: the database cannot be opened.
    """
    from etude.papers.library import Library
    from etude.store.engine import open_store

    library = Library(open_store())
    if with_papers and not library.count():
        raise PapersError(EMPTY)
    return library


def open_settings(file: Path | None = None) -> Settings:
    """Read the settings: `file`, or papers.yaml in Etude's data folder.

    Raises:
        PapersError: a setting cannot be used.
    """
    from etude.papers.settings import Settings

    return Settings.read(file)


def open_reader(library: Library, user: str | None = None) -> Reader:
    """Open the likes, tags and searches of a user; None is the current one."""
    from etude.core.user import current_user
    from etude.papers.reader import Reader

    return Reader(library.engine, user or current_user("papers"))


def index_folder() -> Path:
    """Return where the full-text index is."""
    from etude.core.paths import home

    return home() / "papers-index"


def open_index(library: Library, show: Show = show_nothing) -> Index:
    """Open the full-text index and update it from the library."""
    from etude.papers.search import Index

    index = Index(index_folder(), library)
    index.refresh(lambda step: show(f"index: {step.text} {counted(step.done, step.total)}"))
    return index


def counted(done: int, total: int | None) -> str:
    """Return `1,200 of 5,000`, or as much of it as is known."""
    if not done:
        return ""
    return f"{done:,} of {total:,}" if total else f"{done:,}"


def paper_id(text: str) -> str:
    """Return the unversioned arXiv id in a person's id or URL.

    Raises:
        PapersError: there is none.
    """
    from etude.papers.identity import parse_identifier

    try:
        return parse_identifier(text).id
    except ValueError as error:
        raise PapersError(str(error)) from error


def known_category(name: str) -> str:
    """Return a category of arXiv, or an archive such as cs, whatever the case of its letters.

    Raises:
        PapersError: it has none of that name.
    """
    from etude.core.errors import did_you_mean
    from etude.papers.categories import CATEGORIES

    known = {one.lower(): one for one in CATEGORIES}
    known |= {one.split(".")[0].lower(): one.split(".")[0] for one in CATEGORIES}
    if name.lower() not in known:
        raise PapersError(f"arXiv has no category {name!r}{did_you_mean(name, CATEGORIES)}")
    return known[name.lower()]


def iso_day(text: str) -> str:
    """Return a day as YYYY-MM-DD.

    Raises:
        PapersError: it is none.
    """
    from datetime import date

    try:
        if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
            raise ValueError
        return date.fromisoformat(text).isoformat()
    except ValueError as error:
        raise PapersError(f"{text!r} is no day; days look like 2026-05-04") from error


def tagged(reader: Reader, tag: str) -> list[str]:
    """Return the ids of the papers with a tag.

    Raises:
        PapersError: no paper has it; the message names the nearest tag.
    """
    from etude.core.errors import did_you_mean

    tags = reader.tags()
    if tag not in tags:
        raise PapersError(f"no paper has the tag {tag!r}{did_you_mean(tag, tags)}")
    return tags[tag]
