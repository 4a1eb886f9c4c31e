"""Session of one sync with arXiv: library, client, clock and report."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from etude.core.errors import LockHeldError, PapersError
from etude.core.lock import FileLock
from etude.papers.arxiv.due_date import LONG_AGO, due_before, needs_listing
from etude.papers.arxiv.rate_limited_client import RateLimitedClient
from etude.papers.calendar import feed_day
from etude.papers.library import Library
from etude.papers.record import Sighting
from etude.papers.settings import Settings

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class SyncProgress:
    """Progress of a sync."""

    source: str
    """`rss`, `oai`, `query` or `gate`."""
    text: str
    papers: int
    """Papers received so far."""


@dataclass(frozen=True, slots=True)
class Line:
    """Result of one source in a sync."""

    source: str
    text: str
    failed: bool = False


@dataclass(slots=True)
class SyncSession:
    """State of one sync: library, settings, client, and results so far."""

    library: Library
    settings: Settings
    gate: RateLimitedClient
    clock: Clock
    show: Callable[[SyncProgress], None] | None
    lines: list[Line] = field(default_factory=list[Line])
    papers: int = 0
    seen: dict[str, int] = field(default_factory=dict[str, int])
    """Hash of the stored content of each id of this run."""
    settled: int = 0
    """Number of papers that no feed carried, listed on the day they were due."""
    before: tuple[int, int] = (0, 0)
    """Number of papers and revision at the start."""

    def __post_init__(self) -> None:
        self.before = (self.library.count(), self.library.revision())

    def now(self) -> datetime:
        """Return the current time in UTC."""
        return datetime.fromtimestamp(self.clock(), UTC)

    def tell(self, source: str, text: str) -> None:
        """Report progress."""
        if self.show:
            self.show(SyncProgress(source, text, self.papers))

    def waiting(self, text: str) -> None:
        """Report a wait for the rate limit."""
        self.tell("gate", text)

    def facts(self, key: str) -> dict[str, Any]:
        """Return the stored mark `key`; empty before the first time."""
        return self.library.mark(key) or {}

    def put(self, sightings: Sequence[Sighting], marks: Mapping[str, Any]) -> None:
        """Store papers and progress in one transaction."""
        # A cross-listed paper comes with each of its sets: the same content needs no second merge.
        hashes = {of.id: hash(of) for of in sightings}
        new = [of for of in sightings if self.seen.get(of.id) != hash(of)]
        with self.library.engine.begin() as connection:
            if new:
                self.library.put_in(connection, new, self._listing)
            for key, value in marks.items():
                self.library.set_mark(key, value, connection)
        self.papers += len(sightings)
        self.seen |= hashes

    def _listing(self, row: Mapping[str, Any], kinds: Collection[str]) -> tuple[str, str] | None:
        """Return the listing of a paper that no feed can carry any more, else None."""
        kind = needs_listing(self.settings.categories, row, kinds)
        # Without a day of change, a feed that was not stored yet may list it.
        if kind is None or row["datestamp"] is None:
            return None
        day = due_before(row, feed_day(self.now()) - LONG_AGO)
        if day is None:
            return None
        self.settled += 1
        return day.isoformat(), kind.value

    def note(self, source: str, count: int, text: str, error: str | None) -> None:
        """Store the result of a source, for the report and for `health`."""
        self.lines.append(Line(source, error or text, error is not None))
        old = self.facts(f"sync:{source}")
        now = self.clock()
        self.library.set_mark(
            f"sync:{source}",
            {
                "tried": now,
                "success": old.get("success") if error else now,
                "count": old.get("count", 0) if error else count,
                "error": error,
                "failures": old.get("failures", 0) + 1 if error else 0,
            },
        )


@contextlib.contextmanager
def alone(folder: Path) -> Generator[None]:
    """Lock out other syncs; the lock ends with its process."""
    lock = FileLock(folder / "papers-sync.lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except LockHeldError as error:
        owner = f" (process {error.pid})" if error.pid is not None else ""
        raise PapersError(f"another sync is running{owner}; wait for it to finish") from error
    except OSError as error:
        raise PapersError(f"{lock.file} cannot be used: {error.strerror or error}") from error
    with lock:
        yield
