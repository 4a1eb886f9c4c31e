"""Backfill of older papers from the query API, in windows of a week, newest first."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

from etude.papers.arxiv.query import submitted
from etude.papers.arxiv.session import Line, SyncSession

WINDOW = timedelta(days=7)
"""Days per window; the default categories have some 6,000 submissions in a week."""


def windows(run: SyncSession, since: date, until: date) -> Iterator[tuple[date, date]]:
    """Yield first and last day of each window not read completely yet, newest first."""
    end = until
    while end >= since:
        start = max(since, end - WINDOW + timedelta(days=1))
        done = _done(run)
        # Days at the edges that were read already are skipped.
        first, last = start, end
        while first <= last and first.isoformat() in done:
            first += timedelta(days=1)
        while last >= first and last.isoformat() in done:
            last -= timedelta(days=1)
        if first <= last:
            yield first, last
        end = start - timedelta(days=1)


def _done(run: SyncSession) -> set[str]:
    kept: dict[str, Any] = run.facts("query:done")
    return set(kept.get("days", [])) if kept.get("of") == list(run.settings.categories) else set()


def read_window(run: SyncSession, first: date, last: date) -> None:
    """Store the papers submitted from `first` to `last`, both included.

    Raises:
        SourceError: the query API is down or refuses.
    """
    begin = datetime.combine(first, datetime.min.time(), UTC)
    end = datetime.combine(last, datetime.min.time(), UTC) + timedelta(hours=23, minutes=59)
    notes: list[str] = []
    for papers in submitted(run.gate, run.settings.categories, begin, end, notes.append):
        run.put(papers, {})
        run.tell("query", f"{first} to {last}: {run.papers} papers")
    run.lines += [Line("query", note, failed=True) for note in notes]
    # A day counts as read when it is over and all its papers were received.
    settled = min(last, run.now().date() - timedelta(days=3))
    if notes or settled < first:
        return
    days = {(first + timedelta(days=n)).isoformat() for n in range((settled - first).days + 1)}
    of = list(run.settings.categories)
    run.put([], {"query:done": {"of": of, "days": sorted(_done(run) | days)}})
