"""`etude papers export | import | digest | serve-feeds`: export papers, for programs and people."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from etude.cli.papers import papers
from etude.cli.papers.context import (
    ask_for_any,
    complete_tag,
    day_option,
    echo,
    identifier,
    open_index,
    open_library,
    open_reader,
    open_settings,
)
from etude.cli.spinner import working
from etude.core.errors import PapersError, did_you_mean

if TYPE_CHECKING:
    from etude.papers.digest import Extra
    from etude.papers.library import Library


def complete_format(incomplete: str) -> list[str]:
    """Return the formats that start with what is typed."""
    from etude.papers.exchange import FORMATS

    return [name for name in FORMATS if name.startswith(incomplete)]


@papers.command(
    "export",
    epilog="Examples:\n\n`etude papers export --tag to-read --format bibtex -o reading.bib`\n\n"
    "`etude papers export --search 'LoRA since:2026-01' --format csv`\n\n"
    "`etude papers export --everything -o backup.json`",
)
def export_papers(
    ids: Annotated[list[str] | None, typer.Argument(help="arXiv ids or URLs.")] = None,
    form: Annotated[
        str,
        typer.Option(
            "--format",
            "-f",
            help="bibtex, csl-json, ris, csv or json. Default: by the suffix of the output file.",
            autocompletion=complete_format,
        ),
    ] = "",
    tag: Annotated[
        str | None, typer.Option(help="Papers with this tag.", autocompletion=complete_tag)
    ] = None,
    liked: Annotated[bool, typer.Option("--liked", help="Papers that you liked.")] = False,
    search: Annotated[str | None, typer.Option(help="Papers that a query finds.")] = None,
    day: Annotated[str | None, typer.Option(help="Papers announced on this day.")] = None,
    everything: Annotated[
        bool,
        typer.Option("--everything", help="All papers, likes, tags and searches, as JSON."),
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Output file. Default: standard output.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of papers.")] = 100_000,
) -> None:
    """Export papers as BibTeX, CSL-JSON, RIS, CSV or lossless JSON."""
    from etude.papers.exchange import SUFFIXES, write
    from etude.papers.exchange.whole import with_listings

    endings = {suffix: name for name, suffix in reversed(SUFFIXES.items())}
    guessed = endings.get(output.suffix.lower(), "") if output else ""
    if everything and guessed == "csl-json":
        guessed = "json"  # of the two that end so, the one that loses nothing
    chosen = form or guessed or ("json" if everything else "bibtex")
    library = open_library()
    reader = open_reader(library)
    keys = [identifier(text) for text in ids or []]
    if tag is not None:
        tags = reader.tags()
        if tag not in tags:
            raise PapersError(f"no paper has the tag {tag!r}{did_you_mean(tag, tags)}")
        keys += tags[tag]
    if liked:
        keys += [key for key, value in reader.opinions().items() if value > 0]
    if search is not None:
        keys += open_index(library).search(search, most=limit).ids
    if day is not None:
        keys += [row["id"] for row in library.day(day_option(day) or "")]
    if everything:
        keys += [row["id"] for page in library.since(0) for row in page]
    keys = list(dict.fromkeys(keys))[:limit]
    if not keys and not everything:
        asked = liked or search is not None or day is not None
        raise PapersError(
            "nothing to export: no paper is meant by that"
            if asked
            else "nothing to export: give ids, --tag, --liked, --search, --day or --everything"
        )
    rows = library.get_many(keys)
    if chosen == "json":
        rows = with_listings(library, rows)
    whole = everything and chosen == "json"
    text = write(rows, chosen, reader=reader.export() if whole else None)
    if output is None:
        typer.echo(text, nl=not text.endswith("\n"))
    else:
        try:
            # As it was written: line ends of CSV and RIS are part of the format.
            with output.open("w", encoding="utf-8", newline="") as file:
                file.write(text)
        except OSError as error:
            raise PapersError(f"{output} cannot be written: {error.strerror}") from error
        echo(f"{len(rows)} papers as {chosen} in {output}")
    missing = [key for key in keys if key not in {row["id"] for row in rows}]
    for key in missing:
        typer.echo(f"{key} is not among the papers here", err=True)
    if missing:
        raise typer.Exit(1)


@papers.command(
    "import",
    epilog="Examples:\n\n`etude papers import library.bib --tag from-zotero --like`\n\n"
    "`etude papers import backup.json`",
)
def import_papers(
    file: Annotated[
        Path, typer.Argument(help="A file written by `export`, Zotero, JabRef or others.")
    ],
    form: Annotated[
        str | None,
        typer.Option(
            "--format",
            "-f",
            help="Format of the file. Default: by its suffix.",
            autocompletion=complete_format,
        ),
    ] = None,
    tag: Annotated[str | None, typer.Option(help="Tag the imported papers with this.")] = None,
    like: Annotated[
        bool, typer.Option("--like", help="Like the imported papers, as a start for the ranking.")
    ] = False,
) -> None:
    """Import papers and, from Etude's own JSON, likes, tags and searches."""
    from etude.cli.papers.collect import follow_up
    from etude.papers.exchange import read_file
    from etude.papers.exchange.whole import restore

    contents = read_file(file, form)
    if not contents.entries and contents.reader is None:
        raise PapersError(f"{file}: there is no entry in it; --format says what it is")
    library = open_library()
    reader = open_reader(library)
    before = library.count()
    restore(library, contents.entries)
    changed = reader.restore(contents.reader) if contents.reader is not None else 0
    known = [row["id"] for row in library.get_many(contents.ids)]
    for key in known:
        if tag is not None:
            reader.tag(key, tag)
        if like:
            reader.like(key)
    added = library.count() - before
    echo(f"{len(contents.entries)} entries, {added} papers added")
    if added:
        follow_up(library)
    if changed:
        echo(f"{changed} likes, tags and searches taken over")
    for name, count in (
        ("without an id of arXiv", len(contents.unknown)),
        (
            "not known here: `etude papers backfill` fetches older ones",
            len(contents.ids) - len(known),
        ),
    ):
        if count:
            echo(f"{count} {name}")


@papers.command(
    "digest",
    epilog="Examples:\n\n`etude papers digest`\n\n`etude papers digest --html digest.html`\n\n"
    "`etude papers digest --mail`",
)
def make_digest(
    day: Annotated[
        str | None,
        typer.Option(
            help="Day of the digest, as in 2026-05-04. Default: the last day with papers."
        ),
    ] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write Markdown to this file.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a web page to this file.")] = None,
    mail: Annotated[bool, typer.Option("--mail", help="Send the digest by e-mail.")] = False,
    resend: Annotated[
        bool, typer.Option("--resend", help="Send it also to addresses that have received it.")
    ] = False,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, help="Maximum number of papers per shelf.")
    ] = 12,
    problem: Annotated[bool, typer.Option(help="Include the problem of the day.")] = True,
) -> None:
    """Make a digest: papers by shelf, news of your searches, the problem of the day.

    Mail is configured under `mail` in papers.yaml (host, sender, to, …) or by ETUDE_MAIL_HOST and
    similar variables. A digest is sent to each address once.
    """
    from etude.papers.digest import digest
    from etude.papers.mail import MailSettings, send
    from etude.papers.ranking import waiting

    library, settings = open_library(), open_settings()
    ask_for_any(library)
    mailing = MailSettings.read(settings.mail) if mail else None
    reader = open_reader(library)
    news = waiting(reader, library, open_index(library))
    for trouble in news.problems:
        echo(trouble)
    with working("making the digest"):
        made = digest(
            library,
            settings,
            reader,
            day=day_option(day),
            most=limit,
            alerts=news.alerts,
            problem=_problem_of_the_day(library) if problem else None,
        )
    for path, text in ((markdown, made.markdown), (html, made.html)):
        if path is not None:
            try:
                path.write_text(text(), encoding="utf-8")
            except OSError as error:
                raise PapersError(f"{path} cannot be written: {error.strerror}") from error
            echo(f"{made.subject}: {path}")
    if mailing is not None:
        sent = send(made, mailing, library, resend=resend, show=echo)
        echo(f"sent to {len(sent.now)}, {len(sent.before)} had it")
    if markdown is None and html is None and mailing is None:
        typer.echo(made.text())
    # Only now: what was not written or sent is news still.
    news.shown()


def _problem_of_the_day(library: Library) -> Extra:
    from etude.core.user import current_user
    from etude.papers.digest import Extra
    from etude.practice.daily import problem_of_the_day
    from etude.practice.problem import load_shelf
    from etude.practice.progress import UserProgress

    progress = UserProgress(library.engine, current_user("practice"))
    choice = problem_of_the_day(library.engine, progress, load_shelf())
    how = f"etude practice start {choice.problem.slug}"
    text = f"{choice.problem.front.difficulty}, {choice.problem.collection}: {how}"
    return Extra(choice.problem.title, text)


@papers.command("serve-feeds", epilog="Example:\n\n`etude papers serve-feeds --port 8765 --daily`")
def serve_feeds(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 picks a free one.")
    ] = 8765,
    daily: Annotated[
        bool, typer.Option("--daily", help="Fetch new papers each day when they are due.")
    ] = False,
) -> None:
    """Serve RSS, Atom and JSON feeds of shelves, tags, saved searches and what you may like.

    Feeds reveal your tags and searches to everyone who can reach the address.
    """
    from etude.papers.serve import serve

    library, settings = open_library(), open_settings()
    index = open_index(library)
    if daily:
        from etude.cli.papers.collect import sync_once
        from etude.papers.schedule import in_background

        in_background(lambda: not sync_once(library, settings).failed, say=echo)
    serve(library, index, settings, open_reader(library), host, port, show=echo)
