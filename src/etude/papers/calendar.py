"""arXiv's announcement calendar, in US Eastern time.

Submissions until 14:00 of a working day are announced at 20:00, on Sundays to Thursdays, and appear
in the feed of the following day, so feeds carry papers on Mondays to Fridays. Submissions between
Thursday 14:00 and Friday 14:00 are announced on Sunday. On holidays the feed stays empty.
Source: https://info.arxiv.org/help/availability.html. OAI-PMH has them from about 22:30.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

EASTERN = ZoneInfo("America/New_York")
READY_HOUR = 6
"""Hour, US Eastern, until which a day's papers may still be delayed."""
_DEADLINE = time(14)
_PUBLICATION = time(22, 30)
_NAMED = {
    2026: {
        date(2026, 1, 1): "New Year's Day",
        date(2026, 1, 19): "Martin Luther King Day",
        date(2026, 6, 19): "Juneteenth",
        date(2026, 7, 3): "Independence Day",
        date(2026, 9, 7): "Labor Day",
        date(2026, 11, 26): "Thanksgiving",
        date(2026, 12, 25): "Christmas",
        date(2026, 12, 29): "winter break",
        date(2026, 12, 31): "winter break",
    }
}
"""Years whose list arXiv has published; other years follow from the rules."""


@lru_cache
def holidays(year: int) -> dict[date, str]:
    """Return the days of `year` without announcements, with their names."""
    if year in _NAMED:
        return _NAMED[year]
    return {
        _observed(date(year, 1, 1)): "New Year's Day",
        _weekday(year, 1, 0, 3): "Martin Luther King Day",
        _observed(date(year, 6, 19)): "Juneteenth",
        _observed(date(year, 7, 4)): "Independence Day",
        _weekday(year, 9, 0, 1): "Labor Day",
        _weekday(year, 11, 3, 4): "Thanksgiving",
        _observed(date(year, 12, 25)): "Christmas",
    }


def _weekday(year: int, month: int, weekday: int, count: int) -> date:
    first = date(year, month, 1)
    return first + timedelta(days=(weekday - first.weekday()) % 7 + 7 * (count - 1))


def _observed(day: date) -> date:
    return day + timedelta(days={5: -1, 6: 1}.get(day.weekday(), 0))


def feed_day(moment: datetime) -> date:
    """Return the day, US Eastern, of the feed shown at `moment`, an aware time."""
    return moment.astimezone(EASTERN).date()


def no_feed(day: date) -> str | None:
    """Return why the feed of `day` is empty by the calendar, None if papers are expected."""
    if day.weekday() >= 5:
        return "weekend"
    return holidays(day.year).get(day)


def next_feed(day: date) -> date:
    """Return the first day after `day` whose feed carries papers."""
    day += timedelta(days=1)
    while no_feed(day) is not None:
        day += timedelta(days=1)
    return day


def last_feed(day: date) -> date:
    """Return `day`, or the last day before it, whose feed carries papers."""
    while no_feed(day) is not None:
        day -= timedelta(days=1)
    return day


def deadline(day: date) -> datetime:
    """Return the submission deadline of the feed of `day`: 14:00 of the last weekday before."""
    before = day - timedelta(days=1)
    while before.weekday() >= 5:
        before -= timedelta(days=1)
    return datetime.combine(before, _DEADLINE, EASTERN)


@lru_cache(maxsize=4096)
def _first_feed_at_or_after(day: date) -> date:
    return day if no_feed(day) is None else next_feed(day)


def expected_feed(submitted: datetime) -> date:
    """Return the day of the feed that carries a version submitted then, unless arXiv held it."""
    local = submitted.astimezone(EASTERN)
    day = local.date()
    if local.weekday() >= 5:
        day += timedelta(days=7 - local.weekday())
        return _first_feed_at_or_after(day + timedelta(days=1))
    late = local.time() >= _DEADLINE
    # In the feed of the next weekday where it came before the deadline, else the one after that.
    for _ in range(2 if late else 1):
        day += timedelta(days=1)
        while day.weekday() >= 5:
            day += timedelta(days=1)
    return _first_feed_at_or_after(day)


def publication(day: date) -> datetime:
    """Return when OAI-PMH has the papers of the feed of `day`, in UTC: late on the day before."""
    evening = datetime.combine(day - timedelta(days=1), _PUBLICATION, EASTERN)
    return evening.astimezone(UTC)


def last_publication(moment: datetime) -> datetime:
    """Return the last time up to `moment` when OAI-PMH was due to publish new papers, in UTC."""
    day = moment.astimezone(EASTERN).date() + timedelta(days=1)
    while no_feed(day) is not None or publication(day) > moment:
        day -= timedelta(days=1)
    return publication(day)
