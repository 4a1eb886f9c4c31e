"""`etude papers export | import | digest | serve-feeds`: export papers, for programs and people."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from etude.app.papers.opening import open_index, open_library, open_reader, open_settings
from etude.cli.papers import papers
from etude.cli.papers.context import complete_tag, echo
from etude.cli.spinner import working
from etude.core.atomic_files import disk_reason, replace_output
from etude.core.errors import PapersError


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
    from etude.app.papers import exchange

    chosen = exchange.export_format(form, output, everything=everything)
    library = open_library()
    selection = exchange.Selection(ids or (), tag, liked, search, day, everything, limit)
    with working("collecting the papers") as show:
        made = exchange.export_papers(library, open_reader(library), selection, chosen, show=show)
    if output is None:
        typer.echo(made.text, nl=not made.text.endswith("\n"))
    else:
        try:
            # As it was written: line ends of CSV and RIS are part of the format.
            replace_output(output, made.text)
        except OSError as error:
            raise PapersError(f"{output} cannot be written: {disk_reason(error)}") from error
        echo(f"{made.papers} papers as {chosen} in {output}")
    for key in made.missing:
        typer.echo(f"{key} is not among the papers here", err=True)
    if made.missing:
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
    from etude.app.papers.exchange import import_papers as read_into
    from etude.cli.papers.collect import finish

    library = open_library()
    done = read_into(library, open_reader(library), file, form, tag=tag, like=like)
    echo(f"{done.entries} entries, {done.added} papers added")
    if done.added:
        finish(library)
    if done.changed:
        echo(f"{done.changed} likes, tags and searches taken over")
    for name, count in (
        ("without an id of arXiv", done.without_id),
        ("not known here: `etude papers backfill` fetches older ones", done.not_here),
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
    from etude.app.papers import exchange
    from etude.papers.mail import MailSettings, send

    library, settings = open_library(with_papers=True), open_settings()
    mailing = MailSettings.read(settings.mail) if mail else None
    with working("making the digest") as show:
        done = exchange.make_digest(
            library,
            open_reader(library),
            settings,
            day=day,
            limit=limit,
            problem=problem,
            show=show,
        )
    made, news = done.digest, done.news
    for trouble in news.problems:
        echo(trouble)
    for path, text in ((markdown, made.markdown), (html, made.html)):
        if path is not None:
            try:
                replace_output(path, text())
            except OSError as error:
                raise PapersError(f"{path} cannot be written: {disk_reason(error)}") from error
            echo(f"{made.subject}: {path}")
    if mailing is not None:
        sent = send(made, mailing, library, resend=resend, show=echo)
        echo(f"sent to {len(sent.now)}, {len(sent.before)} had it")
    if markdown is None and html is None and mailing is None:
        typer.echo(made.text())
    # Only now: what was not written or sent is news still.
    news.shown()


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
    with working("bringing the index up to date") as show:
        index = open_index(library, show)
    if daily:
        from etude.cli.papers.collect import sync_once
        from etude.papers.schedule import in_background

        in_background(lambda: not sync_once(library, settings).failed, say=echo)
    serve(library, index, settings, open_reader(library), host, port, show=echo)
