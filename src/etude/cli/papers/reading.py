"""`etude papers today | search | show | related`: show papers."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from etude.app.papers.opening import open_library, open_reader, open_settings
from etude.cli.papers import papers
from etude.cli.papers.context import (
    complete_shelf,
    console,
    echo,
    print_listed,
    print_paper,
)
from etude.cli.spinner import working

if TYPE_CHECKING:
    from collections.abc import Sequence

    from etude.app.papers.reading import ListedPaper, PaperDetails

Limit = Annotated[
    int, typer.Option("--limit", "-n", min=1, max=1000, help="Maximum number of papers to show.")
]


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
    from etude.app.papers.reading import papers_of_day

    library = open_library(with_papers=True)
    with working("learning what you like") as show:
        found = papers_of_day(
            library,
            open_reader(library),
            open_settings(),
            day=day,
            shelf=shelf,
            replaced=replaced,
            show=show,
        )
    kind, count = "new versions" if replaced else "new papers", len(found.papers)
    if not count:
        echo(f"no {kind} on {found.day}: {found.why_empty}")
        return
    _print_list(found.papers[:limit], no_likes=found.no_likes)
    where = f" on the shelf {shelf}" if shelf else ""
    more = f"; {count - limit} more, `-n {count}` shows them" if count > limit else ""
    echo(f"{count} {kind} on {found.day}{where}{more}")


def _print_list(papers: Sequence[ListedPaper], *, first: int = 1, no_likes: bool = False) -> None:
    from etude.papers.ranking.shelf_order import NO_LIKES

    out = console()
    for place, paper in enumerate(papers, first):
        print_listed(out, paper, place)
    if no_likes:
        echo(f"{NO_LIKES}; `etude papers like ID` of three papers makes the order yours")


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
    from etude.app.papers.reading import search_papers as search

    library = open_library(with_papers=True)
    with working("searching") as show:
        found = search(
            library,
            open_reader(library),
            " ".join(query),
            order=order.value,
            limit=limit,
            page=page,
            since=since,
            until=until,
            categories=category or (),
            show=show,
        )
    if ids:
        for paper in found.papers:
            typer.echo(paper.row["id"])
        return
    _print_list(found.papers, first=(page - 1) * limit + 1, no_likes=found.no_likes)
    if found.explain:
        echo(f"read as: {found.explain}")
    if found.total and not found.papers:
        echo(f"page {page} is behind the last")
    echo(f"{found.counted} papers" if found.total else "no paper has that")
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

    details, out = _details(paper, related), console()
    row, shown = details.paper.row, card(details.paper.row)
    print_listed(out, details.paper)
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
    _print_related(details)
    if browse:
        typer.launch(shown.link)


@papers.command("related", epilog="Example:\n\n`etude papers related 2604.01234`")
def show_related(
    paper: Annotated[str, typer.Argument(help="An arXiv id or URL.")], limit: Limit = 10
) -> None:
    """Show related papers, by meaning if the model `minilm` was pulled, otherwise by words."""
    _print_related(_details(paper, limit))


def _details(paper: str, related: int) -> PaperDetails:
    from etude.app.papers.reading import paper_details

    library = open_library()
    with working("looking for related papers") as show:
        return paper_details(library, open_reader(library), paper, related=related, show=show)


def _print_related(details: PaperDetails) -> None:
    out = console()
    if details.related:
        out.print("\nrelated:")
    for row in details.related:
        print_paper(out, row)
