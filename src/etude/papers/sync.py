"""Synchronises the library with arXiv; can be interrupted and restarted at any point.

The feeds show what is new and its announcement day, OAI-PMH is authoritative, and the query API
covers older papers. Everything stored is a union of what sources report (see
`etude.papers.library`), and progress is stored in the same transaction as papers, so an interrupted
run, or a page that is read twice, leads to the same result.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from etude.core.errors import PapersError, SourceError
from etude.core.paths import home
from etude.papers.arxiv.announcements import read_feeds, settle, store_feeds
from etude.papers.arxiv.backfill import read_window, windows
from etude.papers.arxiv.oai_harvest import due, harvest
from etude.papers.arxiv.rate_limited_client import RateLimitedClient
from etude.papers.arxiv.session import Clock, Line, SyncProgress, SyncSession, alone
from etude.papers.calendar import EASTERN, READY_HOUR, feed_day, next_feed, no_feed
from etude.papers.library import Library
from etude.papers.settings import Settings

__all__ = ["Line", "Report", "SyncProgress", "backfill", "sync"]


@dataclass(frozen=True, slots=True)
class Report:
    """Result of a sync."""

    added: int
    changed: int
    same: int
    day: str
    """Day of the sync, US Eastern."""
    listed: int
    """Number of papers in the library announced on that day."""
    sources: tuple[Line, ...]
    why_empty: str | None
    """Reason why the day has no papers, in one sentence."""

    @property
    def failed(self) -> bool:
        """Whether a source could not be read."""
        return any(line.failed for line in self.sources)

    def lines(self) -> list[str]:
        """Return the report as lines for a terminal or a log."""
        first = f"{self.added} new, {self.changed} changed, {self.same} unchanged"
        found = [f"{first}; {self.listed} announced on {self.day}"]
        found += [f"{line.source}: {line.text}" for line in self.sources]
        return found + ([self.why_empty] if self.why_empty else [])


def sync(
    library: Library,
    settings: Settings,
    *,
    show: Callable[[SyncProgress], None] | None = None,
    clock: Clock = time.time,
    gate: RateLimitedClient | None = None,
    folder: Path | None = None,
    full: bool = False,
) -> Report:
    """Fetch and store new papers and changes; see the module's docstring.

    Args:
        library: receives the papers.
        settings: categories and sources.
        show: called with progress.
        clock: seconds since 1970.
        gate: replaces the HTTP client of `folder` in tests.
        folder: folder of the locks; Etude's data folder unless given.
        full: query OAI-PMH even if the feeds show nothing new.

    Raises:
        PapersError: another sync is running. Failed sources are listed in the report.
    """
    with alone(folder or home()), contextlib.ExitStack() as stack:
        own = gate or stack.enter_context(RateLimitedClient(settings, folder=folder))
        run = SyncSession(library, settings, own, clock, show)
        if own.told is None:
            own.told = run.waiting
        started = clock()
        batches, trouble = read_feeds(run)
        if full or trouble or any(batches) or due(run):
            harvest(run)
        else:
            run.lines.append(Line("oai", "skipped: the feeds have not changed"))
        store_feeds(run, [batch for batch in batches if batch is not None], trouble)
        settle(run)
        if run.settled:
            run.lines.append(Line("oai", f"{run.settled} papers that no feed listed"))
        report = _report(run)
        library.set_mark(
            "sync:run",
            {
                "started": started,
                "ended": clock(),
                "added": report.added,
                "changed": report.changed,
                "same": report.same,
                "requests": own.requests,
                "failed": report.failed,
                "why_empty": report.why_empty,
            },
        )
        return report


def backfill(
    library: Library,
    settings: Settings,
    since: date,
    until: date,
    *,
    show: Callable[[SyncProgress], None] | None = None,
    clock: Clock = time.time,
    gate: RateLimitedClient | None = None,
    folder: Path | None = None,
) -> Report:
    """Fetch papers submitted from `since` to `until`, both included, newest window first.

    Completed windows are not read again; `library.mark("query:done")` lists them.

    Raises:
        PapersError: `since` is after `until`, or another sync is running.
    """
    if since > until:
        raise PapersError(f"{since} is after {until}")
    with alone(folder or home()), contextlib.ExitStack() as stack:
        own = gate or stack.enter_context(RateLimitedClient(settings, folder=folder))
        run = SyncSession(library, settings, own, clock, show)
        if own.told is None:
            own.told = run.waiting
        error = None
        try:
            for start, end in windows(run, since, until):
                read_window(run, start, end)
        except SourceError as problem:
            error = str(problem)
        run.note("query", run.papers, f"{run.papers} papers of {since} to {until}", error)
        settle(run)
        return _report(run, of_the_day=False)


def _report(run: SyncSession, *, of_the_day: bool = True) -> Report:
    today = feed_day(run.now())
    listed = len(run.library.day(today.isoformat()))
    count, revision = run.before
    added = run.library.count() - count
    touched = run.library.changed_since(revision)
    return Report(
        added,
        touched - added,
        len(run.seen) - touched,
        today.isoformat(),
        listed,
        tuple(run.lines),
        _why_empty(run, today) if of_the_day and not listed else None,
    )


def _why_empty(run: SyncSession, today: date) -> str:
    reason = no_feed(today)
    named = f"{today:%A, %d %B}"
    coming = f"the next papers come on {next_feed(today):%A, %d %B}"
    if reason == "weekend":
        return f"{named}: arXiv announces nothing at the weekend; {coming}."
    if reason is not None:
        return f"{named}: arXiv announces nothing on a holiday ({reason}); {coming}."
    down = [line for line in run.lines if line.failed]
    if down:
        names = ", ".join(dict.fromkeys(line.source for line in down))
        return f"{named}: arXiv could not be read ({names}): {down[0].text}"
    marks = [run.facts(f"rss:{name}") for name in run.settings.categories]
    shown = [mark["day"] for mark in marks if mark.get("items")]
    if shown:
        return f"{named}: not announced yet; the feeds still show {max(shown)}."
    early = run.now().astimezone(EASTERN).hour < READY_HOUR
    if early or run.library.last_datestamp() == today.isoformat():
        return f"{named}: not announced yet; the feeds are still empty."
    return f"{named}: nothing was announced in {', '.join(run.settings.categories)}."
