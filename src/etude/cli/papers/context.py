"""Shared by the `etude papers` commands: library, index and reader, and printing papers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from etude.cli.spinner import working
from etude.core.errors import PapersError

if TYPE_CHECKING:
    from rich.console import Console

    from etude.papers.library import Library
    from etude.papers.reader import Reader
    from etude.papers.search import Index
    from etude.papers.settings import Settings

NONE_YET = "no papers yet: `etude papers sync` fetches the last days"


def open_library() -> Library:
    """Open the library of this installation."""
    from etude.papers.library import Library
    from etude.store.engine import open_store

    return Library(open_store())


def open_settings(file: Path | None = None) -> Settings:
    """Read the settings."""
    from etude.papers.settings import Settings

    return Settings.read(file)


def open_reader(library: Library) -> Reader:
    """Open the likes, tags and searches of the person at this terminal."""
    from etude.core.user import current_user
    from etude.papers.reader import Reader

    return Reader(library.engine, current_user("papers"))


def index_folder() -> Path:
    """Return where the full-text index is."""
    from etude.core.paths import home

    return home() / "papers-index"


def open_index(library: Library) -> Index:
    """Open the full-text index and update it from the library, showing progress."""
    from etude.papers.search import Index

    index = Index(index_folder(), library)
    with working("bringing the index up to date") as say:
        index.refresh(lambda step: say(f"index: {step.text} {counted(step.done, step.total)}"))
    return index


def counted(done: int, total: int | None) -> str:
    """Return `1,200 of 5,000`, or as much of it as is known."""
    if not done:
        return ""
    return f"{done:,} of {total:,}" if total else f"{done:,}"


def ask_for_any(library: Library) -> None:
    """Check that the library has papers.

    Raises:
        PapersError: the library is empty.
    """
    if not library.count():
        raise PapersError(NONE_YET)


def complete_shelf(incomplete: str) -> list[str]:
    """Return the shelves that start with what is typed."""
    try:
        return [name for name in open_settings().shelves if name.startswith(incomplete)]
    except Exception:  # a completion that fails says nothing
        return []


def complete_tag(incomplete: str) -> list[str]:
    """Return the reader's tags that start with what is typed."""
    try:
        tags = open_reader(open_library()).tags()
        return sorted(tag for tag in tags if tag.startswith(incomplete))
    except Exception:
        return []


def complete_search(incomplete: str) -> list[str]:
    """Return the names of saved searches that start with what is typed."""
    try:
        found = open_reader(open_library()).searches()
        return [search.name for search in found if search.name.startswith(incomplete)]
    except Exception:
        return []


def identifier(text: str) -> str:
    """Return the unversioned id in what was typed.

    Raises:
        PapersError: there is none.
    """
    from etude.papers.identity import parse_identifier

    try:
        return parse_identifier(text).id
    except ValueError as error:
        raise PapersError(str(error)) from error


def console() -> Console:
    """Return the console of results: no markup, no wrapping where output goes to a pipe."""
    from rich.console import Console

    out = Console(markup=False, highlight=False, emoji=False)
    if not out.is_terminal:
        out = Console(markup=False, highlight=False, emoji=False, width=100_000)
    return out


def print_paper(
    out: Console,
    row: Mapping[str, Any],
    *,
    place: int | None = None,
    why: Sequence[str] = (),
    opinion: int = 0,
    tags: Sequence[str] = (),
) -> None:
    """Print one paper: title, authors, marks, summary, and why it stands where it does."""
    from rich.text import Text

    from etude.papers.card import card

    shown = card(row)
    sign = {1: " ♥", -1: " ✗"}.get(opinion, "")
    head = Text(f"{place}. " if place is not None else "", style="dim")
    head.append(shown.title, style="bold")
    head.append(sign, style="red")
    out.print(head)
    facts = [row["id"], str(row["announced"]), " ".join(shown.categories[:4]), shown.byline()]
    facts += [*shown.marks, *(f"#{tag}" for tag in tags)]
    out.print(Text("   " + " · ".join(fact for fact in facts if fact), style="dim"))
    if shown.summary:
        out.print(Text("   " + shown.summary))
    if why:
        out.print(Text("   " + ", ".join(why), style="cyan dim"))
    out.print()


def known_category(name: str) -> str:
    """Return a category of arXiv, or an archive such as cs, however its letters were typed.

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


def plain_words(why: Sequence[tuple[str, float]]) -> list[str]:
    """Return the words that decided as people read them: `detection +0.8`, `survey −0.3`."""
    return [
        word if not weight else f"{word} {'+' if weight > 0 else '−'}{abs(weight):.1f}"
        for word, weight in why
    ]


def day_option(text: str | None) -> str | None:
    """Return a day as YYYY-MM-DD.

    Raises:
        PapersError: it is none.
    """
    if text is None:
        return None
    from datetime import date

    try:
        if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
            raise ValueError
        return date.fromisoformat(text).isoformat()
    except ValueError as error:
        raise PapersError(f"{text!r} is no day; days look like 2026-05-04") from error


def echo(text: str) -> None:
    """Print a line that may hold texts of papers, without what could steer a terminal."""
    from etude.papers.words import shown

    typer.echo(shown(text))
