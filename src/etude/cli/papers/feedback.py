"""`etude papers like | dislike | unlike | tag | follow | save | interests | alerts`: feedback."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from etude.app.papers.opening import open_index, open_library, open_reader, paper_id, tagged
from etude.cli.papers import papers
from etude.cli.papers.context import complete_search, complete_tag, console, echo, print_paper
from etude.cli.spinner import working
from etude.core.errors import PapersError

Ids = Annotated[list[str], typer.Argument(help="arXiv ids or URLs.")]
Authors = Annotated[list[str], typer.Argument(help="Names of authors; quote names with spaces.")]


def _each(ids: list[str], change: Callable[[str], bool], done: str, same: str) -> None:
    wrong = 0
    for text in ids:
        try:
            key = paper_id(text)
            echo(f"{key} {done if change(key) else same}")
        except PapersError as error:  # one that cannot be does not keep the others from it
            typer.echo(f"error: {error}", err=True)
            wrong += 1
    if wrong:
        raise typer.Exit(2)


@papers.command("like", epilog="Example:\n\n`etude papers like 2604.01234 2604.05678`")
def like_papers(ids: Ids) -> None:
    """Rank papers like these higher."""
    _each(ids, open_reader(open_library()).like, "liked", "was liked already")


@papers.command("dislike", epilog="Example:\n\n`etude papers dislike 2604.01234`")
def dislike_papers(ids: Ids) -> None:
    """Rank papers like these lower."""
    _each(ids, open_reader(open_library()).dislike, "disliked", "was disliked already")


@papers.command("unlike", epilog="Example:\n\n`etude papers unlike 2604.01234`")
def unlike_papers(ids: Ids) -> None:
    """Withdraw your likes and dislikes of these papers."""
    _each(
        ids,
        open_reader(open_library()).unlike,
        "no longer liked or disliked",
        "was not liked or disliked",
    )


@papers.command(
    "tag",
    epilog="Examples:\n\n`etude papers tag to-read 2604.01234`\n\n"
    "`etude papers tag to-read --remove 2604.01234`\n\n`etude papers tag`",
)
def tag_papers(
    tag: Annotated[str | None, typer.Argument(help="The tag.", autocompletion=complete_tag)] = None,
    ids: Annotated[list[str] | None, typer.Argument(help="arXiv ids or URLs.")] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Remove the tag.")] = False,
) -> None:
    """Tag papers. Without ids, list papers with the tag; without a tag, list all tags.

    Tagged papers, and papers in which the tag occurs as a word, rank higher. Each tag has a feed
    (`etude papers serve-feeds`).
    """
    library = open_library()
    reader = open_reader(library)
    if tag is None:
        for name, ids_of in sorted(reader.tags().items()):
            echo(f"{name} · {len(ids_of)}")
        return
    if not ids:
        out = console()
        for row in library.get_many(tagged(reader, tag)):
            print_paper(out, row)
        return
    word = tag

    def change(key: str) -> bool:
        return reader.untag(key, word) if remove else reader.tag(key, word)

    _each(ids, change, "untagged" if remove else f"tagged {tag}", "stays as it was")


@papers.command("follow", epilog="Example:\n\n`etude papers follow 'Yann LeCun'`")
def follow_authors(
    authors: Annotated[
        list[str] | None, typer.Argument(help="Names of authors; quote names with spaces.")
    ] = None,
) -> None:
    """Follow authors in all spellings of their names. Without names, list those followed."""
    reader = open_reader(open_library())
    for author in authors or []:
        echo(f"{author}: {'followed' if reader.follow(author) else 'followed already'}")
    if not authors:
        for author in reader.following():
            echo(author)


@papers.command("unfollow", epilog="Example:\n\n`etude papers unfollow 'Yann LeCun'`")
def unfollow_authors(authors: Authors) -> None:
    """Stop following authors."""
    reader = open_reader(open_library())
    for author in authors:
        dropped = reader.unfollow(author)
        echo(f"{', '.join(dropped)}: no longer followed" if dropped else f"{author}: not followed")


@papers.command("save", epilog="Example:\n\n`etude papers save detectors 'YOLO OR DETR cat:cs.CV'`")
def save_search(
    name: Annotated[
        str | None, typer.Argument(help="Name of the saved search.", autocompletion=complete_search)
    ] = None,
    query: Annotated[
        str | None, typer.Argument(help="The query, as in `etude papers search`.")
    ] = None,
    drop: Annotated[bool, typer.Option("--drop", help="Delete the saved search.")] = False,
) -> None:
    """Save a search for `etude papers alerts`. Without a name, list saved searches."""
    library = open_library()
    reader = open_reader(library)
    if name is None:
        for search in reader.searches():
            echo(f"{search.name}: {search.query}")
        return
    if drop:
        echo(f"{name}: {'dropped' if reader.drop_search(name) else 'there was none'}")
        return
    if query is None:
        echo(f"{name}: {reader.search(name).query}")
        return
    with working("bringing the index up to date") as show:
        index = open_index(library, show)
    found = index.search(query, most=1)  # a query that cannot be read is told now
    reader.save_search(name, query)
    echo(f"{name}: kept, {found.counted()} papers now; news come with `etude papers alerts`")


@papers.command("alerts", epilog="Example:\n\n`etude papers alerts`")
def show_alerts() -> None:
    """Show new papers of saved searches and followed authors, each once."""
    from etude.app.papers.reading import news as waiting_news

    library = open_library()
    with working("looking for news") as show:
        news = waiting_news(library, open_reader(library), show)
    out, count = console(), 0
    for alert in news.alerts:
        rows = library.get_many(list(alert.ids))
        count += len(rows)
        if rows:
            echo(f"== {alert.name}: {len(rows)} new")
        for row in rows:
            print_paper(out, row)
    news.shown()
    for trouble in news.problems:
        typer.echo(f"error: {trouble}", err=True)
    if news.problems:
        raise typer.Exit(1)
    if not count:
        echo("nothing new")


@papers.command("interests", epilog="Example:\n\n`etude papers interests`")
def show_interests(
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, max=200, help="Words in each direction.")
    ] = 15,
) -> None:
    """Show the words that raise and lower papers, as learned from your likes."""
    from etude.app.papers.reading import interest_of

    library = open_library()
    reader = open_reader(library)
    with working("learning what you like") as show:
        interest = interest_of(library, reader, show)
    if interest is None:
        raise PapersError("nothing is known of you yet: `etude papers like ID` three papers")
    echo(f"from {interest.likes} likes and {interest.dislikes} dislikes")
    more, less = interest.words(limit)
    for name, words in (("more", more), ("less", less)):
        if words:
            echo(f"{name}: " + ", ".join(f"{word} {abs(weight):.2f}" for word, weight in words))
    for author in reader.following():
        echo(f"author: {author}")
