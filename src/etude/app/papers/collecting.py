"""Collecting papers, and what follows: summaries, index and embeddings."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

from etude.app.papers.opening import Show, counted, index_folder, open_index, show_nothing

if TYPE_CHECKING:
    from etude.papers.library import Library
    from etude.papers.settings import Settings
    from etude.papers.summaries.writers import Writer
    from etude.papers.sync import Report, SyncProgress

EMBEDDED_AT_ONCE = 2000
"""Maximum number of papers that one run embeds; the rest wait for the next run."""


@dataclass(frozen=True)
class FollowUp:
    """What was done for papers after they came in."""

    summaries: int
    """Summaries that were made."""
    embedded: int
    """Papers that were embedded; 0 if the embedding model was not pulled."""


def collect_new(
    library: Library,
    settings: Settings,
    *,
    full: bool = False,
    show: Show = show_nothing,
    count: Callable[[int], None] | None = None,
) -> Report:
    """Fetch the papers announced since the last time, and index them meanwhile.

    Args:
        library: where they are kept.
        settings: what is collected.
        full: ask for all changes, even if the feeds show nothing new.
        show: called with what is being fetched.
        count: called with the number of papers received so far.

    Returns:
        What changed; a source that failed is in it.
    """
    from etude.papers.sync import sync

    with _indexing(library, show, count) as step:
        return sync(library, settings, full=full, show=step)


def collect_older(
    library: Library,
    settings: Settings,
    since: date,
    until: date | None = None,
    *,
    show: Show = show_nothing,
) -> Report:
    """Fetch the papers submitted from `since` until `until` (None: today), newest first."""
    from etude.papers.sync import backfill

    with _indexing(library, show) as step:
        last = until or datetime.now(UTC).date()
        return backfill(library, settings, since, last, show=step)


@contextmanager
def _indexing(
    library: Library, show: Show, count: Callable[[int], None] | None = None
) -> Generator[Callable[[SyncProgress], None]]:
    """Index papers in the background while they are fetched."""
    from etude.papers.search.background_indexer import BackgroundIndexer

    with BackgroundIndexer(index_folder(), library) as indexer:

        def step(progress: SyncProgress) -> None:
            show(f"{progress.source}: {progress.text} ({progress.papers:,} papers)")
            indexer.came(progress.papers)
            if count is not None:
                count(progress.papers)

        yield step


def follow_up(library: Library, *, summaries: bool = True, show: Show = show_nothing) -> FollowUp:
    """Make missing summaries, update the index and, if its model was pulled, the embeddings."""
    from etude.papers.search.embed import pulled as embedding_model

    made = summarise(library, show=show) if summaries else 0
    index = open_index(library, show)
    embedded = 0
    if embedding_model() is not None:
        embedded = index.embed(
            lambda step: show(f"meaning: {counted(step.done, step.total)}"), EMBEDDED_AT_ONCE
        )
    return FollowUp(made, embedded)


def summarise(
    library: Library,
    writer: Writer | None = None,
    *,
    limit: int | None = None,
    show: Show = show_nothing,
) -> int:
    """Make missing summaries and return how many were stored.

    Args:
        library: whose papers are summarised.
        writer: what writes them; None takes a sentence of each abstract.
        limit: maximum number of papers, newest first.
        show: called with how many are done.
    """
    from etude.papers.summaries import summarise_missing

    return summarise_missing(
        library,
        limit=limit,
        writer=writer,
        show=lambda done, total: show(f"making summaries: {done:,} of {total:,}"),
    )
