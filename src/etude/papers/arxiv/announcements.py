"""Announcement days: reads the feeds and dates the papers that they list.

A feed's own date is not trusted: its day is the latest on which one of its papers was due by
arXiv's calendar. Papers that no feed ever carried get the day on which they were due.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from etude.core.errors import SourceDownError, SourceError
from etude.papers.arxiv.due_date import due_before, needs_listing
from etude.papers.arxiv.feeds import Feed, fetch_feed
from etude.papers.arxiv.query import by_id
from etude.papers.arxiv.session import SyncSession
from etude.papers.calendar import expected_feed, feed_day, next_feed, no_feed
from etude.papers.record import Announcement, Sighting

_SAMPLE = 20


@dataclass(slots=True)
class Batch:
    """The content of a changed feed."""

    category: str
    feed: Feed


def read_feeds(run: SyncSession) -> tuple[list[Batch | None], str | None]:
    """Return a batch per category, None for unchanged feeds, and the errors as text."""
    batches: list[Batch | None] = []
    errors: list[str] = []
    for category in run.settings.categories:
        run.tell("rss", f"feed of {category}")
        kept = run.facts(f"rss:{category}")
        try:
            feed = fetch_feed(run.gate, [category], kept.get("etag"))
        except SourceDownError as error:
            errors.append(str(error))
            break
        except SourceError as error:
            errors.append(f"{category}: {error}")
            continue
        batches.append(None if feed is None else Batch(category, feed))
    return batches, "; ".join(errors) or None


def store_feeds(run: SyncSession, batches: Sequence[Batch], trouble: str | None) -> None:
    """Store the papers of feeds with their day, after OAI-PMH has provided their dates."""
    today = feed_day(run.now())
    count, told, old = 0, list[str](), dict[date, list[str]]()
    for batch in batches:
        feed = batch.feed
        day = _batch_day(run, feed, today) if feed.items else today
        count += len(feed.items)
        if day is None:
            # Their day is not yet known: store them, and fetch the feed again next time.
            run.put(feed.items, {})
            told.append(f"{batch.category} has papers whose day is not yet known")
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
            old.setdefault(day, []).append(batch.category)
        if feed.full:
            told.append(f"{batch.category} is truncated at {len(feed.items)} papers")
        if feed.skipped:
            told.append(f"{feed.skipped} entries of {batch.category} are malformed")
    for day, names in sorted(old.items()):
        told.append(f"{', '.join(names)} still show{'s' if len(names) == 1 else ''} {day}")
    rest = len(run.settings.categories) - len(batches)
    text = f"{count} papers in {len(batches)} feeds" if batches else "no feed has changed"
    if batches and rest and not trouble:
        text += f", {rest} not changed"
    run.note("rss", count, "; ".join([text, *told]), trouble)


def _batch_day(run: SyncSession, feed: Feed, today: date) -> date | None:
    """Return the latest day up to today on which a paper of the feed was due, or None.

    arXiv may hold papers, so they come on their due day or later, never sooner.
    """
    rows = {row["id"]: row for row in run.library.get_many([item.id for item in feed.items])}
    found = [(item, _due_day(item, rows.get(item.id))) for item in feed.items]
    due = [day for _, day in found if day is not None and day <= today]
    unknown = [
        item.id for item, day in found if day is None and item.announcement is Announcement.NEW
    ]
    if unknown and today not in due:
        # Known papers may be of an earlier day; if OAI-PMH is down, all of them are.
        try:
            papers = by_id(run.gate, unknown[-_SAMPLE:])
        except SourceError:
            return None
        asked = [expected_feed(paper.published) for paper in papers if paper.published is not None]
        if not asked:
            return None
        due += [day for day in asked if day <= today]
    if due:
        return max(due)
    # Cross-lists only: OAI-PMH dates the change on the day of the feed, or on the evening before.
    stamps = [
        date.fromisoformat(row["datestamp"])
        for row in rows.values()
        if row["datestamp"] is not None
    ]
    stamps = [stamp for stamp in stamps if stamp <= today]
    if not stamps:
        return None
    day = max(stamps)
    return day if no_feed(day) is None else next_feed(day)


def _due_day(item: Sighting, row: Mapping[str, Any] | None) -> date | None:
    if row is None or item.announcement not in {Announcement.NEW, Announcement.REPLACE}:
        return None
    first = item.announcement is Announcement.NEW
    seconds = row["published"] if first else row["updated"]
    # The date must be that of the version announced: a feed provides none.
    of = row["basis"].get("updated", row["basis"][""])[0]
    if seconds is None or (not first and of != item.version):
        return None
    return expected_feed(datetime.fromtimestamp(seconds, UTC))


def settle(run: SyncSession) -> None:
    """List papers that no feed carried, on the day they were due."""
    today = feed_day(run.now())
    mark, until = run.library.mark("settled") or 0, run.library.revision()
    keep = None
    for rows in run.library.listings_since(mark, until):
        found: list[tuple[str, str, str]] = []
        for row in rows:
            kind = needs_listing(run.settings.categories, row, row["kinds"])
            if kind is None:
                continue
            day = due_before(row, today)
            if day is None:
                keep = row["revision"] if keep is None else keep
                continue
            found.append((row["id"], day.isoformat(), kind.value))
        run.library.announce(found)
        run.settled += len(found)
    done = until if keep is None else keep - 1
    if done != mark:
        run.library.set_mark("settled", done)
