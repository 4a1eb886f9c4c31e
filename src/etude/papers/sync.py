"""Brings the library up to date with arXiv; safe to stop at any byte and to start again.

The feeds tell that something is new and on which day it was announced. OAI-PMH tells the truth:
every change since the last harvest, page by page, each page stored in one transaction with how far
the harvest got. Where it is down, the query API's newest changes stand in. All that is stored is a
union of what sources say (see `etude.papers.library`), so a run that dies, or sees a page twice,
leaves what an undisturbed one leaves.

A feed's own date is not believed: its day is the latest on which one of its papers was due by
arXiv's calendar. Papers that no feed ever carried get the day on which they were due.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from etude.errors import PapersError, SourceError
from etude.papers.arxiv.categories import oai_set
from etude.papers.arxiv.feeds import Feed, fetch_feed
from etude.papers.arxiv.gate import Gate
from etude.papers.arxiv.oai import ExpiredTokenError, Page, first_page, next_page
from etude.papers.arxiv.query import by_id, changed, submitted
from etude.papers.calendar import (
    EASTERN,
    READY_HOUR,
    expected_feed,
    feed_day,
    last_publication,
    next_feed,
    no_feed,
)
from etude.papers.identity import Identifier
from etude.papers.library import Library
from etude.papers.record import Announcement, Sighting
from etude.papers.settings import Settings
from etude.paths import home

Clock = Callable[[], float]
WINDOW = timedelta(days=7)
"""Of a back-fill; the default categories submit some 6,000 papers in it."""
_STAND_IN_PAGES = 10
_SAMPLE = 20


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands."""

    source: str
    """`rss`, `oai`, `query` or `gate`."""
    text: str
    papers: int
    """Seen so far by this run."""


@dataclass(frozen=True, slots=True)
class Line:
    """What one source did in a run."""

    source: str
    text: str
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """What a run changed, and why there is nothing where there is nothing."""

    added: int
    changed: int
    same: int
    day: str
    """The day, US Eastern, that the run was made on."""
    listed: int
    """Papers announced on that day in the library."""
    sources: tuple[Line, ...]
    why_empty: str | None
    """One sentence where the day has no papers."""

    @property
    def failed(self) -> bool:
        """Whether a source could not be read."""
        return any(line.failed for line in self.sources)

    def lines(self) -> list[str]:
        """The report for a terminal or a log."""
        first = f"{self.added} new, {self.changed} changed, {self.same} as before"
        found = [f"{first}; {self.listed} announced on {self.day}"]
        found += [f"{line.source}: {line.text}" for line in self.sources]
        return found + ([self.why_empty] if self.why_empty else [])


@dataclass(slots=True)
class _Batch:
    category: str
    feed: Feed
    day: date | None = None


@dataclass(slots=True)
class _Run:
    library: Library
    settings: Settings
    gate: Gate
    clock: Clock
    show: Callable[[Progress], None] | None
    lines: list[Line] = field(default_factory=list[Line])
    papers: int = 0
    seen: dict[str, int] = field(default_factory=dict[str, int])
    """Ids of this run and a hash of what was stored last of each."""
    before: tuple[int, int] = (0, 0)
    """Papers and revision when the run began."""

    def __post_init__(self) -> None:
        self.before = (self.library.count(), self.library.revision())

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.clock(), UTC)

    def tell(self, source: str, text: str) -> None:
        if self.show:
            self.show(Progress(source, text, self.papers))

    def waiting(self, text: str) -> None:
        """Hear of a wait at the gate."""
        self.tell("gate", text)

    def facts(self, key: str) -> dict[str, Any]:
        """What is kept under `key`; empty before the first time."""
        return self.library.mark(key) or {}

    def put(self, sightings: Sequence[Sighting], marks: Mapping[str, Any]) -> None:
        """Store papers and progress in one transaction."""
        # A cross-listed paper comes with each of its sets: the same words need no second merge.
        hashes = {of.id: hash(of) for of in sightings}
        new = [of for of in sightings if self.seen.get(of.id) != hash(of)]
        with self.library.engine.begin() as connection:
            if new:
                self.library.put_in(connection, new)
            for key, value in marks.items():
                self.library.set_mark(key, value, connection)
        self.papers += len(sightings)
        self.seen |= hashes

    def note(self, source: str, count: int, text: str, error: str | None) -> None:
        """Keep how a source did, for the report and for `health`."""
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


def sync(
    library: Library,
    settings: Settings,
    *,
    show: Callable[[Progress], None] | None = None,
    clock: Clock = time.time,
    gate: Gate | None = None,
    folder: Path | None = None,
    full: bool = False,
) -> Report:
    """Read what is new; see this module's text.

    Args:
        library: gets the papers.
        settings: which categories, from where.
        show: called as the run goes on.
        clock: seconds since 1970.
        gate: another gate than that of `folder`, for tests.
        folder: where the locks are; Etude's data folder unless given.
        full: ask OAI-PMH even where the feeds show nothing new.

    Raises:
        PapersError: another run is at work. Sources that fail are told of in the report.
    """
    with _alone(folder or home()), contextlib.ExitStack() as stack:
        own = gate or stack.enter_context(Gate(settings, folder=folder))
        run = _Run(library, settings, own, clock, show)
        if own.told is None:
            own.told = run.waiting
        started = clock()
        batches, trouble = _read_feeds(run)
        if full or trouble or any(batches) or _due(run):
            _read_truth(run)
        else:
            run.lines.append(Line("oai", "not asked: the feeds have not changed"))
        _store_feeds(run, [batch for batch in batches if batch is not None], trouble)
        settled = _settle(run)
        if settled:
            run.lines.append(Line("oai", f"{settled} papers that no feed carried"))
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
    show: Callable[[Progress], None] | None = None,
    clock: Clock = time.time,
    gate: Gate | None = None,
    folder: Path | None = None,
) -> Report:
    """Read papers submitted from `since` to `until`, both included, newest window first.

    Windows that were read whole are not read again; `library.mark("query:done")` has them.

    Raises:
        PapersError: the dates are the wrong way around, or another run is at work.
    """
    if since > until:
        raise PapersError(f"{since} is after {until}")
    with _alone(folder or home()), contextlib.ExitStack() as stack:
        own = gate or stack.enter_context(Gate(settings, folder=folder))
        run = _Run(library, settings, own, clock, show)
        if own.told is None:
            own.told = run.waiting
        error = None
        try:
            for start, end in _windows(run, since, until):
                _read_window(run, start, end)
        except SourceError as problem:
            error = str(problem)
        run.note("query", run.papers, f"{run.papers} papers of {since} to {until}", error)
        _settle(run)
        return _report(run, of_the_day=False)


@contextlib.contextmanager
def _alone(folder: Path) -> Generator[None]:
    """Let one run work at a time; the lock falls with its process, however that ends."""
    path = folder / "papers-sync.lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = path.open("a+", encoding="ascii")
    except OSError as error:
        raise PapersError(f"{path} cannot be used: {error.strerror or error}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            owner = file.read().strip()
            raise PapersError(
                f"papers are being read already{f' by process {owner}' if owner else ''}: "
                "let it finish"
            ) from error
        file.seek(0)
        file.truncate()
        file.write(str(os.getpid()))
        file.flush()
        yield


# The feeds: a sign that something is new, and the day it was announced on.


def _read_feeds(run: _Run) -> tuple[list[_Batch | None], str | None]:
    """One batch a category, None where the feed has not changed; and what failed."""
    batches: list[_Batch | None] = []
    errors: list[str] = []
    for category in run.settings.categories:
        run.tell("rss", f"feed of {category}")
        kept = run.facts(f"rss:{category}")
        try:
            feed = fetch_feed(run.gate, [category], kept.get("etag"))
        except SourceError as error:
            errors.append(f"{category}: {error}")
            continue
        batches.append(None if feed is None else _Batch(category, feed))
    return batches, "; ".join(errors) or None


def _store_feeds(run: _Run, batches: Sequence[_Batch], trouble: str | None) -> None:
    today = feed_day(run.now())
    count, told = 0, list[str]()
    for batch in batches:
        feed = batch.feed
        day = _batch_day(run, feed, today) if feed.items else today
        count += len(feed.items)
        if day is None:
            # Their day cannot be told yet: they are kept, and the feed is asked for again.
            run.put(feed.items, {})
            told.append(f"{batch.category} has papers whose day cannot be told yet")
            continue
        run.put(
            feed.listed(day),
            {
                f"rss:{batch.category}": {
                    "etag": feed.etag,
                    "day": day.isoformat(),
                    "items": len(feed.items),
                }
            },
        )
        if day < today and no_feed(today) is None:
            told.append(f"{batch.category} still shows {day}")
        if feed.full:
            told.append(f"{batch.category} is cut at {len(feed.items)} papers")
        if feed.skipped:
            told.append(f"{feed.skipped} entries of {batch.category} make no sense")
    rest = len(run.settings.categories) - len(batches)
    text = f"{count} papers in {len(batches)} feeds" if batches else "no feed has changed"
    if batches and rest and not trouble:
        text += f", {rest} not changed"
    run.note("rss", count, "; ".join([text, *told]), trouble)


def _batch_day(run: _Run, feed: Feed, today: date) -> date | None:
    """The latest day, up to today, on which a paper of the feed was due; None where none tells.

    Papers may be held and come later than they were due, never sooner.
    """
    rows = {row["id"]: row for row in run.library.get_many([item.id for item in feed.items])}
    due = [
        day
        for item in feed.items
        if (day := _due_day(item, rows.get(item.id))) is not None and day <= today
    ]
    if due:
        return max(due)
    # Cross-lists only: OAI-PMH dates the change on the day of the feed, or on the evening before.
    stamps = [
        date.fromisoformat(row["datestamp"])
        for row in rows.values()
        if row["datestamp"] is not None
    ]
    stamps = [stamp for stamp in stamps if stamp <= today]
    if stamps:
        day = max(stamps)
        return day if no_feed(day) is None else next_feed(day)
    new = [item.id for item in feed.items if item.announcement is Announcement.NEW]
    try:
        papers = by_id(run.gate, new[-_SAMPLE:]) if new else []
    except SourceError:
        return None
    due = [expected_feed(paper.published) for paper in papers if paper.published is not None]
    return max((day for day in due if day <= today), default=None)


def _due_day(item: Sighting, row: Mapping[str, Any] | None) -> date | None:
    if row is None or item.announcement not in {Announcement.NEW, Announcement.REPLACE}:
        return None
    first = item.announcement is Announcement.NEW
    seconds = row["published"] if first else row["updated"]
    # The date must be that of the version announced: a feed's own sighting brings none.
    of = row["basis"].get("updated", row["basis"][""])[0]
    if seconds is None or (not first and of != item.version):
        return None
    return expected_feed(datetime.fromtimestamp(seconds, UTC))


# OAI-PMH: the truth.


def _due(run: _Run) -> bool:
    """Whether OAI-PMH has published since it was last read whole."""
    published = last_publication(run.now()).timestamp()
    marks = [run.facts(f"oai:{oai_set(name)}") for name in run.settings.categories]
    return any(mark.get("harvest") or mark.get("success", 0) < published for mark in marks)


def _read_truth(run: _Run) -> None:
    errors: list[str] = []
    before = run.papers
    for category in run.settings.categories:
        try:
            _harvest(run, oai_set(category))
        except SourceError as error:
            errors.append(f"{category}: {error}")
    count = run.papers - before
    text = f"{count} records of {len(run.settings.categories)} sets"
    run.note("oai", count, text, "; ".join(errors) or None)
    if len(errors) < len(run.settings.categories):
        return
    try:
        count = 0
        pages = changed(run.gate, run.settings.categories, lambda ids: _known(run.library, ids))
        for number, papers in enumerate(pages, 1):
            run.put(papers, {})
            count += len(papers)
            run.tell("query", f"{count} newest changes in place of OAI-PMH")
            if number == _STAND_IN_PAGES:
                break
        run.note("query", count, f"{count} newest changes, in place of OAI-PMH", None)
    except SourceError as error:
        run.note("query", 0, "", str(error))


def _known(library: Library, ids: Sequence[Identifier]) -> set[Identifier]:
    versions = {row["id"]: row["version"] or 0 for row in library.get_many([of.id for of in ids])}
    return {of for of in ids if versions.get(of.id, -1) >= (of.version or 0)}


def _harvest(run: _Run, name: str) -> None:
    """Read the changes of a set; goes on where the last run stopped."""
    key = f"oai:{name}"
    mark: dict[str, Any] = run.facts(key)
    ago = timedelta(days=run.settings.first_days)
    since = date.fromisoformat(mark["from"]) if "from" in mark else (run.now() - ago).date()
    page, start, last = None, None, None
    kept = mark.get("harvest")
    if kept:
        start, last = date.fromisoformat(kept["start"]), _day_or_none(kept["last"])
        if kept["expires"] is not None and kept["expires"] > run.clock() + run.settings.timeout:
            with contextlib.suppress(ExpiredTokenError):
                page = next_page(run.gate, kept["token"])
                # A record that moved meanwhile shifts the others: that day is read again.
                start = min(start, last or start)
    expired = 0
    while True:
        if page is None:
            since = max(since, last or since)
            page = first_page(run.gate, name, since)
            if since > page.answered:  # a clock, ours or the server's, was ahead
                since = page.answered - ago
                page = first_page(run.gate, name, since)
            start = start or page.answered
        assert start is not None
        last = max((of for of in (last, page.last) if of is not None), default=None)
        progress: dict[str, Any] = {"from": since.isoformat(), "success": mark.get("success", 0)}
        if page.token:
            progress["harvest"] = {
                "start": start.isoformat(),
                "last": last.isoformat() if last else None,
                "token": page.token,
                "expires": page.expires.timestamp() if page.expires else None,
            }
        else:
            progress |= {"from": start.isoformat(), "success": run.clock()}
        run.put(page.records, {key: progress})
        run.tell("oai", f"{name}: {run.papers} records")
        if not page.token:
            return
        page, expired = _following(run, page, expired)


def _following(run: _Run, page: Page, expired: int) -> tuple[Page | None, int]:
    """The next page; None where its token has expired, so that the harvest goes on by date."""
    assert page.token is not None
    try:
        return next_page(run.gate, page.token), expired
    except ExpiredTokenError:
        if expired >= run.settings.tries:
            raise
        return None, expired + 1


def _day_or_none(text: str | None) -> date | None:
    return date.fromisoformat(text) if text else None


# The query API: what lies further back.


def _windows(run: _Run, since: date, until: date) -> Iterator[tuple[date, date]]:
    """Days of each window that has not been read whole, newest first, both included."""
    end = until
    while end >= since:
        start = max(since, end - WINDOW + timedelta(days=1))
        done = _done(run)
        # Days of the edges that were read already are left out.
        first, last = start, end
        while first <= last and first.isoformat() in done:
            first += timedelta(days=1)
        while last >= first and last.isoformat() in done:
            last -= timedelta(days=1)
        if first <= last:
            yield first, last
        end = start - timedelta(days=1)


def _done(run: _Run) -> set[str]:
    kept: dict[str, Any] = run.facts("query:done")
    return set(kept.get("days", [])) if kept.get("of") == list(run.settings.categories) else set()


def _read_window(run: _Run, first: date, last: date) -> None:
    begin = datetime.combine(first, datetime.min.time(), UTC)
    end = datetime.combine(last, datetime.min.time(), UTC) + timedelta(hours=23, minutes=59)
    notes: list[str] = []
    for papers in submitted(run.gate, run.settings.categories, begin, end, notes.append):
        run.put(papers, {})
        run.tell("query", f"{first} to {last}: {run.papers} papers")
    run.lines += [Line("query", note, failed=True) for note in notes]
    # A day counts as read when nothing more can be submitted to it and all of it came.
    settled = min(last, run.now().date() - timedelta(days=3))
    if notes or settled < first:
        return
    days = {(first + timedelta(days=n)).isoformat() for n in range((settled - first).days + 1)}
    of = list(run.settings.categories)
    run.put([], {"query:done": {"of": of, "days": sorted(_done(run) | days)}})


# Papers that no feed carried.


def _settle(run: _Run) -> int:
    """List papers that no feed showed when they were new, on the day they were due."""
    today = feed_day(run.now())
    mark, until = run.library.mark("settled") or 0, run.library.revision()
    count, keep = 0, None
    for rows in run.library.listings_since(mark, until):
        found: list[tuple[str, str, str]] = []
        for row in rows:
            # A paper of one of our categories was news before it was listed in another.
            ours = row["categories"][:1] and row["categories"][0] in run.settings.categories
            if row["kinds"] & ({"new"} if ours else {"new", "cross"}):
                continue
            day = _due_in_the_past(row, today)
            if day is None:
                keep = row["revision"] if keep is None else keep
                continue
            kind = Announcement.NEW if ours else Announcement.CROSS
            found.append((row["id"], day.isoformat(), kind.value))
        run.library.announce(found)
        count += len(found)
    done = until if keep is None else keep - 1
    if done != mark:
        run.library.set_mark("settled", done)
    return count


def _due_in_the_past(row: Mapping[str, Any], today: date) -> date | None:
    if row["published"] is None:
        return None
    day = expected_feed(datetime.fromtimestamp(row["published"], UTC))
    # While the day of its last change stands in the feeds, one of them may still carry it.
    stamp = row["datestamp"] or ""
    return day if day < today and stamp < today.isoformat() else None


# Why nothing is there.


def _report(run: _Run, *, of_the_day: bool = True) -> Report:
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


def _why_empty(run: _Run, today: date) -> str:
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
