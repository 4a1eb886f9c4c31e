"""When a paper that no feed showed was new: the day on which it was due by arXiv's calendar."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

from etude.papers.calendar import expected_feed
from etude.papers.record import Announcement

LONG_AGO = timedelta(days=14)
"""No feed that is still shown carries what changed that long ago: longer than any holiday."""


def needs_listing(
    categories: Collection[str], row: Mapping[str, Any], kinds: Collection[str]
) -> Announcement | None:
    """As what a paper is to be listed; None where a feed listed it when it was new."""
    # A paper of one of our categories was news before it was listed in another.
    ours = row["categories"][:1] and row["categories"][0] in categories
    if Announcement.NEW in kinds or (not ours and Announcement.CROSS in kinds):
        return None
    return Announcement.NEW if ours else Announcement.CROSS


def due_before(row: Mapping[str, Any], today: date) -> date | None:
    """The day on which a paper was due, where it and the paper's last change lie before `today`."""
    # While the day of its last change stands in the feeds, one of them may still carry it.
    if row["published"] is None or (row["datestamp"] or "") >= today.isoformat():
        return None
    day = expected_feed(datetime.fromtimestamp(row["published"], UTC))
    return day if day < today else None
