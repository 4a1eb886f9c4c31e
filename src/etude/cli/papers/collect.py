"""`etude papers sync | backfill | summarise | health`: collect papers."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from etude.cli.papers import papers
from etude.cli.papers.context import (
    counted,
    day_option,
    echo,
    index_folder,
    open_index,
    open_library,
    open_settings,
)
from etude.cli.spinner import working
from etude.core.errors import PapersError

if TYPE_CHECKING:
    from etude.papers.library import Library
    from etude.papers.settings import Settings
    from etude.papers.summaries.writers import Writer
    from etude.papers.sync import Report, SyncProgress

A_DAY = 2000
"""Maximum number of papers that one run embeds; the rest wait for the next run."""
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
    """Collect once, then update summaries and index."""
    from etude.papers.sync import sync

    with collecting(library) as show:
        report = sync(library, settings, full=full, show=show)
    for line in report.lines():
        echo(line)
    follow_up(library, summaries)
    return report


@contextmanager
def collecting(library: Library) -> Generator[Callable[[SyncProgress], None]]:
    """Show what is being fetched while papers are indexed in the background."""
    from etude.papers.search.background_indexer import BackgroundIndexer

    with working("asking arXiv") as say, BackgroundIndexer(index_folder(), library) as along:

        def show(step: SyncProgress) -> None:
            say(f"{step.source}: {step.text} ({step.papers:,} papers)")
            along.came(step.papers)

        yield show


def follow_up(library: Library, summaries: bool = True) -> None:
    """Update summaries, the index and, if the model was pulled, embeddings."""
    from etude.papers.search.embed import pulled as embedding_model

    if summaries:
        made = _summarise(library, None, None)
        if made:
            typer.echo(f"{made:,} summaries made")
    index = open_index(library)
    if embedding_model() is not None:
        with working("reading papers for their meaning") as say:
            done = index.embed(
                lambda step: say(f"meaning: {counted(step.done, step.total)}"), A_DAY
            )
        if done:
            typer.echo(f"{done:,} papers read for `related`")


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
    from etude.papers.sync import backfill

    first, last = day_option(since), day_option(until)
    if first is None:
        raise PapersError("--since is needed")
    library, settings = open_library(), open_settings(settings_file)
    with collecting(library) as show:
        report = backfill(
            library,
            settings,
            date.fromisoformat(first),
            date.fromisoformat(last) if last else datetime.now(UTC).date(),
            show=show,
        )
    for line in report.lines():
        echo(line)
    follow_up(library, summaries)
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
    from etude.cli.papers.writers import address_writer, tuned_writer

    library = open_library()
    writer = None
    if by is By.address:
        writer = address_writer()
    elif by is not By.extract:
        writer = tuned_writer(run, echo, only_if_better=by is By.best)
    made = _summarise(library, writer, limit)
    typer.echo(f"{made:,} summaries made")
    if problem := getattr(writer, "problem", ""):
        echo(f"some have the sentence of the abstract: {problem}")


def _summarise(library: Library, writer: Writer | None, limit: int | None) -> int:
    from etude.cli.papers.writers import summarise

    with working("making summaries") as say:
        return summarise(library, writer, limit, say)


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
