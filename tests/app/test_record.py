"""The page of progress: a year of days, concepts by how well they are known."""

from __future__ import annotations

from datetime import date, timedelta

from tests.app.test_today import DAY, solve

from etude.app.record import WEEKS, calendar_of, record_of
from etude.app.workbench import open_workbench
from etude.practice.problem import load_shelf
from etude.practice.progress import Concept


def test_a_calendar_has_each_day_of_a_year_once_and_none_after_today():
    today = date(2026, 3, 4)  # a Wednesday
    calendar = calendar_of({today: 2, date(2025, 12, 31): 1, date(2020, 1, 1): 9}, today)
    days = [one.day for _, row in calendar.rows for one in row if one is not None]
    assert len(days) == len(set(days)) == 7 * (WEEKS - 1) + 3
    assert max(days) == today and min(days).weekday() == 0
    assert [(one.day, one.solved) for one in calendar.days] == [(today, 2), (date(2025, 12, 31), 1)]
    assert calendar.total == 3
    assert sum(weeks for _, weeks in calendar.months) == WEEKS
    assert [row[-1] is None for _, row in calendar.rows] == [False] * 3 + [True] * 4
    # A column is a week: the rows of one differ by a day.
    assert calendar.rows[1][1][5].day - calendar.rows[0][1][5].day == timedelta(days=1)


def test_a_concept_is_solid_after_three_days_and_shaky_after_a_failure():
    due = date(2026, 3, 4)
    assert Concept("a", 3 / 5, due, 3, 2).standing == "solid"
    assert Concept("a", 0.0, due, 3, 1).standing == "shaky"
    assert Concept("a", 2 / 5, due, 2, 0).standing == "seen"


def test_the_record_names_what_was_sent_last_and_counts_concepts(installation):
    bench = open_workbench(runs=installation / "runs")
    now = bench.progress.clock()
    first, second = load_shelf()[:2]
    solve(bench, first, at=now - DAY)
    solve(bench, second, accepted=False, at=now)
    record = record_of(bench)
    assert [(one.title, one.kind) for one in record.recent] == [
        (second.title, "wrong answer"),
        (first.title, "accepted"),
    ]
    tags = {tag for problem in load_shelf() for tag in problem.front.tags}
    assert sum(record.counts.values()) == len(tags)
    assert record.counts["shaky"] == 1 and record.concepts[0].standing == "shaky"
    assert record.calendar.total == 1
    bench.close()
