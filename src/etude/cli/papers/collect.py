"""`etude papers sync | backfill | summarise | health`: collect papers."""

from __future__ import annotations

from datetime import UTC, date, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from etude.app.papers.opening import iso_day, open_library, open_settings
from etude.cli.papers import papers
from etude.cli.papers.context import echo
from etude.cli.spinner import working

if TYPE_CHECKING:
    from etude.papers.library import Library
    from etude.papers.settings import Settings
    from etude.papers.sync import Report

SettingsFile = Annotated[
    Path | None,
    typer.Option("--settings", help="Settings file. Default: papers.yaml in Etude's data folder."),
]


@papers.command("sync", epilog="Example:\n\n`etude papers sync`\n\n`etude papers sync --daily`")
def sync_papers(
    full: Annotated[
        bool,
        typer.Option("--full", help="Ask for all changes, even if the feeds show nothing new."),
    ] = False,
    summaries: Annotated[bool, typer.Option(help="Summarise papers that have no summary.")] = True,
    daily: Annotated[
        bool,
        typer.Option("--daily", help="Keep running, and sync each day when new papers are due."),
    ] = False,
    settings_file: SettingsFile = None,
) -> None:
    """Fetch, index and summarise the papers announced since the last sync.

    It can be interrupted at any time and continues where it stopped. The exit code is 1 if a source
    failed. The file papers.yaml in Etude's data folder says what is collected.
    """
    library, settings = open_library(), open_settings(settings_file)
    if not daily:
        if sync_once(library, settings, full, summaries).failed:
            raise typer.Exit(1)
        return
    from etude.papers.schedule import every_day

    def work() -> bool:
        return not sync_once(library, settings, full, summaries).failed

    every_day(work, say=typer.echo)


def sync_once(
    library: Library, settings: Settings, full: bool = False, summaries: bool = True
) -> Report:
    """Collect once, print what changed, then update summaries and index."""
    from etude.app.papers.collecting import collect_new

    with working("asking arXiv") as show:
        report = collect_new(library, settings, full=full, show=show)
    _print_report(report)
    finish(library, summaries)
    return report


def _print_report(report: Report) -> None:
    for line in report.lines():
        echo(line)


def finish(library: Library, summaries: bool = True) -> None:
    """Update summaries, index and embeddings for papers that came in, and print how many."""
    from etude.app.papers.collecting import follow_up

    with working("bringing summaries and the index up to date") as show:
        done = follow_up(library, summaries=summaries, show=show)
    if done.summaries:
        typer.echo(f"{done.summaries:,} summaries made")
    if done.embedded:
        typer.echo(f"{done.embedded:,} papers read for `related`")


@papers.command("backfill", epilog="Example:\n\n`etude papers backfill --since 2026-03-01`")
def backfill_papers(
    since: Annotated[str, typer.Option(help="First day of submission, as in 2026-03-01.")],
    until: Annotated[
        str | None, typer.Option(help="Last day of submission. Default: today.")
    ] = None,
    summaries: Annotated[bool, typer.Option(help="Summarise the papers, too.")] = True,
    settings_file: SettingsFile = None,
) -> None:
    """Fetch older papers, newest first; arXiv allows one request every three seconds."""
    from etude.app.papers.collecting import collect_older

    first = date.fromisoformat(iso_day(since))
    last = date.fromisoformat(iso_day(until)) if until else None
    library, settings = open_library(), open_settings(settings_file)
    with working("asking arXiv") as show:
        report = collect_older(library, settings, first, last, show=show)
    _print_report(report)
    finish(library, summaries)
    if report.failed:
        raise typer.Exit(1)


class By(StrEnum):
    """Who writes summaries."""

    extract = "extract"
    engine = "engine"
    best = "best"
    address = "address"


@papers.command(
    "summarise",
    epilog="Examples:\n\n`etude papers summarise`\n\n"
    "`etude papers summarise --by engine --run runs/paper-summaries --limit 50`\n\n"
    "`ETUDE_LLM_URL=http://localhost:11434/v1 ETUDE_LLM_MODEL=qwen3:8b etude papers summarise "
    "--by address`",
)
def summarise_papers(
    by: Annotated[
        By,
        typer.Option(
            help="extract: a sentence of the abstract; engine: a model tuned by Etude; best: "
            "that model if its recorded ROUGE is at least as good; address: the model at "
            "ETUDE_LLM_URL."
        ),
    ] = By.extract,
    run: Annotated[
        str, typer.Option(help="With engine and best: a run of the recipe paper-summaries.")
    ] = "latest",
    limit: Annotated[
        int | None, typer.Option(min=1, help="Maximum number of papers, newest first.")
    ] = None,
) -> None:
    """Make missing summaries; each records how it was made.

    A model's summary is checked: each number and name in it must occur in the paper's abstract;
    otherwise a sentence of the abstract is used.
    """
    from etude.app.papers.collecting import summarise
    from etude.app.papers.writers import address_writer, tuned_writer

    library = open_library()
    writer = None
    if by is By.address:
        writer = address_writer()
    elif by is not By.extract:
        writer = tuned_writer(run, echo, only_if_better=by is By.best)
    with working("making summaries") as show:
        made = summarise(library, writer, limit=limit, show=show)
    typer.echo(f"{made:,} summaries made")
    if problem := getattr(writer, "problem", ""):
        echo(f"some have the sentence of the abstract: {problem}")


@papers.command("health", epilog="Example:\n\n`etude papers health || mail -s 'no papers' me`")
def show_health(settings_file: SettingsFile = None) -> None:
    """Show when papers were last collected, how many, which are missing, and what failed.

    The exit code is 1 if days are missing or a source failed.
    """
    from etude.papers.health import health

    state = health(open_library(), open_settings(settings_file), datetime.now(UTC))
    for line in state.lines():
        echo(line)
    if not state.well:
        raise typer.Exit(1)
