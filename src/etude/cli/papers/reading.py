"""`etude papers today | search | show | related`: show papers."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from etude.cli.papers import papers
from etude.cli.papers.context import (
    ask_for_any,
    complete_shelf,
    console,
    day_option,
    echo,
    identifier,
    known_category,
    open_index,
    open_library,
    open_reader,
    open_settings,
    plain_words,
    print_paper,
)
from etude.cli.spinner import working
from etude.core.errors import PapersError, did_you_mean

if TYPE_CHECKING:
    from etude.papers.library import Library
    from etude.papers.ranking import Ranked
    from etude.papers.reader import Reader

Limit = Annotated[
    int, typer.Option("--limit", "-n", min=1, max=1000, help="Maximum number of papers to show.")
]
REPLACED = {"replace", "replace-cross"}


@papers.command(
    "today", epilog="Examples:\n\n`etude papers today --shelf vision`\n\n`etude papers today -n 40`"
)
def show_today(
    shelf: Annotated[
        str | None, typer.Option(help="Show this shelf only.", autocompletion=complete_shelf)
    ] = None,
    day: Annotated[
        str | None, typer.Option(help="Show this day instead, as in 2026-05-04.")
    ] = None,
    limit: Limit = 12,
    replaced: Annotated[
        bool, typer.Option("--replaced", help="Show new versions instead of new papers.")
    ] = False,
) -> None:
    """Show the day's new papers, the most interesting for you first.

    The order follows your likes and dislikes (`etude papers like ID`); each paper shows the words
    that determined its score. Every tenth paper is chosen regardless of its score, so that your
    interests can grow.
    """
    library, settings = open_library(), open_settings()
    ask_for_any(library)
    if shelf is not None and shelf not in settings.shelves:
        raise PapersError(f"there is no shelf {shelf!r}{did_you_mean(shelf, settings.shelves)}")
    chosen = day_option(day) or library.last_day()
    if chosen is None:
        raise PapersError(
            "no paper here was announced yet, they came from elsewhere: `etude papers sync` "
            "fetches the last days"
        )
    rows = [
        row
        for row in library.day(chosen)
        if (row["kind"] in REPLACED) is replaced
        and (shelf is None or shelf in settings.shelf_of(row["categories"]))
    ]
    if not rows:
        what = "no new versions" if replaced else "no new papers"
        echo(f"{what} on {chosen}: {_why_empty(chosen)}")
        return
    reader = open_reader(library)
    _print_ranked(reader, _ranked(library, reader, rows, chosen)[:limit])
    left = len(rows) - min(limit, len(rows))
    where = f" on the shelf {shelf}" if shelf else ""
    more = f"; {left} more, `-n {len(rows)}` shows them" if left else ""
    echo(f"{len(rows)} {'new versions' if replaced else 'new papers'} on {chosen}{where}{more}")


def _why_empty(day: str) -> str:
    from datetime import date

    from etude.papers.calendar import no_feed

    return no_feed(date.fromisoformat(day)) or "`etude papers health` says how collecting goes"


def _ranked(
    library: Library, reader: Reader, rows: list[dict[str, Any]], seed: str
) -> list[Ranked]:
    from etude.papers.ranking import Interest, rank

    with working("learning what you like") as say:
        interest = Interest.fit(
            library, reader, show=lambda count: say(f"reading {count:,} papers for their words")
        )
    settings = open_settings()
    ranked = rank(rows, interest, seed=f"{seed} {reader.name}", shelf_of=settings.shelf_of)
    # What the reader has judged already comes last: it is known.
    judged = reader.opinions()
    return sorted(ranked, key=lambda one: one.row["id"] in judged)


def _print_ranked(reader: Reader, ranked: list[Ranked], first: int = 1) -> None:
    from etude.papers.ranking.order import NO_LIKES

    out, opinions = console(), reader.opinions()
    tags = _tags_by_id(reader)
    unknown = [(NO_LIKES, 0.0)]
    for place, one in enumerate(ranked, first):
        print_paper(
            out,
            one.row,
            place=place,
            why=() if one.why == unknown else plain_words(one.why),
            opinion=opinions.get(one.row["id"], 0),
            tags=tags.get(one.row["id"], ()),
        )
    if ranked and all(one.why == unknown for one in ranked):
        echo(f"{NO_LIKES}; `etude papers like ID` of three papers makes the order yours")


def _tags_by_id(reader: Reader) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for tag, ids in reader.tags().items():
        for key in ids:
            found.setdefault(key, []).append(tag)
    return found


class Order(StrEnum):
    """How search results are ordered."""

    newest = "newest"
    relevance = "relevance"
    interest = "interest"


@papers.command(
    "search",
    epilog="Examples:\n\n`etude papers search YOLO`\n\n"
    "`etude papers search 'author:\"Kaiming He\" since:2025-01'`\n\n"
    "`etude papers search 'title:diffusion -video cat:cs.CV' --order relevance`",
    # A word that is left out, -video, is no option.
    context_settings={"ignore_unknown_options": True},
)
def search_papers(
    query: Annotated[
        list[str], typer.Argument(help="Words, phrases and fields, as described above.")
    ],
    order: Annotated[
        Order,
        typer.Option(help="newest, relevance, or interest, which ranks results by your likes."),
    ] = Order.newest,
    limit: Limit = 10,
    page: Annotated[int, typer.Option(min=1, max=10_000, help="Page of results.")] = 1,
    since: Annotated[str | None, typer.Option(help="Announced on this day or later.")] = None,
    until: Annotated[str | None, typer.Option(help="Announced on this day or earlier.")] = None,
    category: Annotated[
        list[str] | None, typer.Option(help="An arXiv category. May be repeated.")
    ] = None,
    ids: Annotated[bool, typer.Option("--ids", help="Print ids only, one a line.")] = False,
) -> None:
    """Search titles, abstracts and authors.

    All words must occur. `"a phrase"`, `-not`, `this OR that`, `(…)`, `begin*`; fields `title:`,
    `abstract:`, `author:`, `cat:cs.CV`, `since:2026-04`, `until:2026-05-04`, `2026-04..2026-05`.
    `YOLO` finds YOLOv8, YOLO-World and yolov11n, too.
    """
    library = open_library()
    ask_for_any(library)
    index = open_index(library)
    by_interest = order is Order.interest
    found = index.search(
        " ".join(query),
        order="relevance" if order is Order.relevance else "newest",
        most=max(limit * 10, 200) if by_interest else limit,
        offset=0 if by_interest else (page - 1) * limit,
        since=day_option(since),
        until=day_option(until),
        categories=[known_category(name) for name in category] if category else None,
    )
    reader, first = open_reader(library), (page - 1) * limit
    rows = library.get_many(found.ids)
    ranked: list[Ranked] = []
    if by_interest:
        ranked = _ranked(library, reader, rows, " ".join(query))[first : first + limit]
        rows = [one.row for one in ranked]
    if ids:
        for row in rows:
            typer.echo(row["id"])
        return
    if by_interest:
        _print_ranked(reader, ranked, first + 1)
    else:
        out, opinions, tags = console(), reader.opinions(), _tags_by_id(reader)
        for place, row in enumerate(rows, first + 1):
            print_paper(
                out,
                row,
                place=place,
                opinion=opinions.get(row["id"], 0),
                tags=tags.get(row["id"], ()),
            )
    if found.explain:
        echo(f"read as: {found.explain}")
    if found.total and not rows:
        echo(f"page {page} is behind the last")
    echo(f"{found.counted()} papers" if found.total else "no paper has that")
    for suggestion in found.suggestions[:3]:
        echo(f"did you mean: {suggestion}")


@papers.command("show", epilog="Example:\n\n`etude papers show 2604.01234`")
def show_paper(
    paper: Annotated[str, typer.Argument(help="An arXiv id or URL.")],
    related: Annotated[
        int, typer.Option(min=0, max=50, help="Number of related papers to list.")
    ] = 5,
    browse: Annotated[
        bool, typer.Option("--browse", help="Open the abstract page in a browser.")
    ] = False,
) -> None:
    """Show a paper: abstract, versions, how its summary was made, related papers."""
    from rich.text import Text

    from etude.papers.card import card

    library = open_library()
    key = identifier(paper)
    row = library.get(key)
    if row is None:
        raise PapersError(f"{key} is not among the papers here; `etude papers search` finds others")
    reader, out = open_reader(library), console()
    shown = card(row)
    print_paper(out, row, opinion=reader.opinions().get(key, 0), tags=reader.tags_of(key))
    if shown.made:
        out.print(Text(f"summary: {shown.made}", style="dim"))
    out.print()
    out.print(Text(shown.abstract))
    out.print()
    for name, text in (("comment", shown.comment), ("licence", shown.licence)):
        if text:
            out.print(Text(f"{name}: {text}", style="dim"))
    days = ", ".join(f"{day} {kind}" for day, kind in row["listings"])
    if days:
        out.print(Text(f"announced: {days}", style="dim"))
    out.print(Text(shown.link))
    if related:
        _print_related(library, key, related)
    if browse:
        typer.launch(shown.link)


@papers.command("related", epilog="Example:\n\n`etude papers related 2604.01234`")
def show_related(
    paper: Annotated[str, typer.Argument(help="An arXiv id or URL.")], limit: Limit = 10
) -> None:
    """Show related papers, by meaning if the model `minilm` was pulled, otherwise by words."""
    library = open_library()
    key = identifier(paper)
    if library.get(key) is None:
        raise PapersError(f"{key} is not among the papers here")
    _print_related(library, key, limit)


def _print_related(library: Library, key: str, limit: int) -> None:
    out = console()
    found = dict(open_index(library).related(key, limit))
    if found:
        out.print("\nrelated:")
    for row in library.get_many(list(found)):
        print_paper(out, row)
