"""Shared by the `etude papers` commands: completing names, and printing papers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

from etude.app.papers.opening import open_library, open_reader, open_settings

if TYPE_CHECKING:
    from rich.console import Console

    from etude.app.papers.reading import ListedPaper


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


def console() -> Console:
    """Return the console of results: no markup, no wrapping where output goes to a pipe."""
    from rich.console import Console

    out = Console(markup=False, highlight=False, emoji=False)
    if not out.is_terminal:
        out = Console(markup=False, highlight=False, emoji=False, width=100_000)
    return out


def print_listed(out: Console, paper: ListedPaper, place: int | None = None) -> None:
    """Print a paper of a list, with what its reader knows of it."""
    print_paper(
        out,
        paper.row,
        place=place,
        why=plain_words(paper.why),
        opinion=paper.opinion,
        tags=paper.tags,
    )


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


def plain_words(why: Sequence[tuple[str, float]]) -> list[str]:
    """Return the words that decided as people read them: `detection +0.8`, `survey −0.3`."""
    return [
        word if not weight else f"{word} {'+' if weight > 0 else '−'}{abs(weight):.1f}"
        for word, weight in why
    ]


def echo(text: str) -> None:
    """Print a line that may hold texts of papers, without what could steer a terminal."""
    from etude.papers.words import shown

    typer.echo(shown(text))
