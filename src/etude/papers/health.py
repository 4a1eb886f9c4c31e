"""Health of the collection: last success, counts, lag and errors of each source."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from etude.papers.arxiv.rate_limited_client import RateLimitedClient
from etude.papers.calendar import EASTERN, READY_HOUR, feed_day, last_feed, no_feed
from etude.papers.library import Library
from etude.papers.settings import Settings

_NAMES = {"rss": "feeds", "oai": "OAI-PMH", "query": "query API"}


@dataclass(frozen=True, slots=True)
class SourceHealth:
    """State of one source."""

    source: str
    tried: datetime | None
    success: datetime | None
    count: int
    """Number of papers of the last success."""
    failures: int
    """Number of consecutive failed runs."""
    error: str | None


@dataclass(frozen=True, slots=True)
class Health:
    """State of the collection."""

    papers: int
    last_day: str | None
    """Latest day with announced papers."""
    lag: int
    """Number of missing announcement days."""
    last_run: datetime | None
    last_success: datetime | None
    """Last time when both feeds and OAI-PMH had been read; None before."""
    sources: tuple[SourceHealth, ...]
    waiting: float
    """Remaining seconds of the cool-down of requests to arXiv."""
    waiting_for: str

    @property
    def well(self) -> bool:
        """Return whether there are papers, no day is missing, and no source failed last."""
        needed = [source for source in self.sources if source.source != "query"]
        came = self.papers > 0 and self.last_success is not None
        return came and not self.lag and not any(source.failures for source in needed)

    def lines(self) -> list[str]:
        """Return the state as lines for a terminal."""
        found = [
            f"{self.papers} papers; the newest were announced on {self.last_day or 'no day yet'}",
            f"last run {_when(self.last_run)}, last success {_when(self.last_success)}",
        ]
        if self.lag:
            days = "day" if self.lag == 1 else "days"
            found.append(f"{self.lag} {days} of announcements missing")
        for source in self.sources:
            state = f"{source.count} papers at {_when(source.success)}"
            if source.error:
                times = "run" if source.failures == 1 else "runs"
                state += f"; failed in the last {source.failures} {times}: {source.error}"
            found.append(f"{_NAMES.get(source.source, source.source)}: {state}")
        if self.waiting > 1:
            why = f" ({self.waiting_for})" if self.waiting_for else ""
            found.append(f"no requests to arXiv for another {self.waiting:.0f} s{why}")
        return found


def health(
    library: Library, settings: Settings, now: datetime, *, folder: Path | None = None
) -> Health:
    """Return the state of the collection at `now`, an aware time.

    Args:
        library: the papers.
        settings: settings of their sources.
        now: the current time.
        folder: folder of the HTTP client's state; Etude's data folder unless given.
    """
    run: dict[str, Any] = library.mark("sync:run") or {}
    sources: list[SourceHealth] = []
    for name in _NAMES:
        mark: dict[str, Any] | None = library.mark(f"sync:{name}")
        if mark is not None:
            sources.append(
                SourceHealth(
                    name,
                    _moment(mark.get("tried")),
                    _moment(mark.get("success")),
                    int(mark.get("count", 0)),
                    int(mark.get("failures", 0)),
                    mark.get("error"),
                )
            )
    wells = [of.success for of in sources if of.source in {"rss", "oai"}]
    both = len(wells) == 2 and all(wells)
    with RateLimitedClient(settings, folder=folder) as gate:
        waiting, why = gate.cool_down()
    last_day = library.last_day()
    # The day of a feed that was read and empty is not missing.
    marks: list[dict[str, Any]] = [
        library.mark(f"rss:{name}") or {} for name in settings.categories
    ]
    read = max([last_day or "", *(mark.get("day", "") for mark in marks)]) or None
    return Health(
        library.count(),
        last_day,
        _lag(read, now) if sources or read else 0,
        _moment(run.get("ended")),
        min(of for of in wells if of is not None) if both else None,
        tuple(sources),
        waiting,
        why,
    )


def _lag(last_day: str | None, now: datetime) -> int:
    """Return the number of feed days after `last_day` that should have been read by now."""
    today = feed_day(now)
    if no_feed(today) is None and now.astimezone(EASTERN).hour < READY_HOUR:
        today -= timedelta(days=1)
    due = last_feed(today)
    if last_day is None:
        return 1
    count, day = 0, date.fromisoformat(last_day) + timedelta(days=1)
    while day <= due and count < 1000:
        count += no_feed(day) is None
        day += timedelta(days=1)
    return count


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _when(moment: datetime | None) -> str:
    return "never" if moment is None else f"{moment:%Y-%m-%d %H:%M} UTC"
