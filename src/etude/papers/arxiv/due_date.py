"""Announcement day of papers that no feed carried, from arXiv's calendar."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

from etude.papers.calendar import expected_feed
from etude.papers.record import Announcement

LONG_AGO = timedelta(days=14)
"""Days after which no current feed can carry a change: longer than any holiday."""


def needs_listing(
    categories: Collection[str], row: Mapping[str, Any], kinds: Collection[str]
) -> Announcement | None:
    """Return the kind of listing that a paper lacks, or None."""
    # A paper of one of our categories was new before it was listed in another.
    ours = row["categories"][:1] and row["categories"][0] in categories
    if Announcement.NEW in kinds or (not ours and Announcement.CROSS in kinds):
        return None
    return Announcement.NEW if ours else Announcement.CROSS


def due_before(row: Mapping[str, Any], today: date) -> date | None:
    """Return the day on which a paper was due, if it and the last change are before `today`."""
    # While the feeds show the day of its last change, one of them may still carry it.
    if row["published"] is None or (row["datestamp"] or "") >= today.isoformat():
        return None
    day = expected_feed(datetime.fromtimestamp(row["published"], UTC))
    return day if day < today else None
