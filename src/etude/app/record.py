"""What a user has done, for the page of progress: days, concepts, the last submissions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from etude.app.workbench import Workbench
    from etude.practice.explanations import ModelRecord
    from etude.practice.progress import Concept, Stats

WEEKS = 53
RECENT = 20


@dataclass(frozen=True)
class Day:
    """A day of the calendar."""

    day: date
    solved: int
    """Problems solved."""


@dataclass(frozen=True)
class Calendar:
    """A year of days, as a table with a column a week."""

    months: list[tuple[str, int]]
    """Name of each month and the number of weeks that begin in it."""
    rows: list[tuple[str, list[Day | None]]]
    """Name of each weekday, and its days; None is after today."""
    days: list[Day]
    """Those with a problem solved, the last first."""
    total: int
    """Problems solved in the year."""


@dataclass(frozen=True)
class Attempted:
    """A submission in the history."""

    slug: str
    title: str
    at: datetime
    """In the user's time zone."""
    kind: str
    """The verdict, or `waiting`."""


@dataclass(frozen=True)
class Record:
    """Everything on the page."""

    stats: Stats
    streak: bool
    """Whether the user wants it counted."""
    calendar: Calendar
    concepts: list[Concept]
    """Shaky ones first, then those seen, then solid ones."""
    counts: dict[str, int]
    """Concepts by how well they are known; `new` are those that no answer has asked for yet."""
    recent: list[Attempted]
    models: list[ModelRecord]


def record_of(bench: Workbench) -> Record:
    """Return what the user has done."""
    from etude.app.practice import standing
    from etude.practice.problem import load_shelf
    from etude.practice.progress import STANDINGS

    shelf = load_shelf()
    found = standing(bench.progress)
    stats = found.stats
    concepts = sorted(stats.concepts, key=lambda one: STANDINGS.index(one.standing))
    counts = {name: sum(one.standing == name for one in concepts) for name in STANDINGS}
    met = {one.name for one in concepts}
    counts["new"] = len({tag for problem in shelf for tag in problem.front.tags} - met)
    titles = {problem.slug: problem.title for problem in shelf}
    return Record(
        stats=stats,
        streak=bench.choices.read().streak,
        calendar=calendar_of(stats.by_day, bench.progress.today()),
        concepts=concepts,
        counts=counts,
        recent=[
            Attempted(one.slug, titles.get(one.slug, one.slug), one.at, one.kind)
            for one in bench.progress.recent(RECENT)
        ],
        models=found.models,
    )


def calendar_of(by_day: dict[date, int], today: date) -> Calendar:
    """Return the weeks up to today, Monday first.

    Args:
        by_day: number of problems solved on each day.
        today: the last day.
    """
    first = today - timedelta(days=today.weekday(), weeks=WEEKS - 1)
    weeks = [first + timedelta(weeks=number) for number in range(WEEKS)]
    months: list[tuple[str, int]] = []
    for week in weeks:
        name = week.strftime("%b")
        if months and months[-1][0] == name:
            months[-1] = (name, months[-1][1] + 1)
        else:
            months.append((name, 1))
    rows: list[tuple[str, list[Day | None]]] = []
    for weekday in range(7):
        days = [week + timedelta(days=weekday) for week in weeks]
        row = [Day(day, by_day.get(day, 0)) if day <= today else None for day in days]
        rows.append((days[0].strftime("%A"), row))
    active = [Day(day, count) for day, count in by_day.items() if first <= day <= today]
    active.sort(key=lambda one: one.day, reverse=True)
    return Calendar(months, rows, active, sum(one.solved for one in active))
