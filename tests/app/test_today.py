"""What comes first today: for a newcomer, with code that was begun, with concepts that are due."""

from __future__ import annotations

import uuid
from datetime import UTC, date, datetime

import pytest

from etude.app.today import FIRST, runs_today, today
from etude.app.workbench import open_workbench
from etude.papers.record import Announcement, Sighting
from etude.practice.problem import load_shelf
from etude.tuning.runs.folder import RunFolder

DAY = 86400.0


@pytest.fixture
def bench(installation):
    bench = open_workbench(runs=installation / "runs")
    yield bench
    bench.close()


def solve(bench, problem, accepted=True, at=None):
    """Record a verdict without a judge."""
    from sqlalchemy import insert

    from etude.practice.judge.verdict import Verdict
    from etude.store.practice import Submission

    kind = "accepted" if accepted else "wrong answer"
    at = bench.progress.clock() if at is None else at
    verdict = Verdict(kind)
    row = {
        "key": uuid.uuid4().hex, "user": "ada", "slug": problem.slug, "source": "x",
        "seed": 1, "state": "done", "attempts": 1, "created": at, "finished": at,
        "kind": kind, "verdict": verdict.to_dict(), "visible_only": False,
    }  # fmt: skip
    with bench.engine.begin() as connection:
        connection.execute(insert(Submission), [row])
    before = bench.progress.clock
    bench.progress.clock = lambda: at
    bench.progress.record(problem, verdict)
    bench.progress.clock = before


def test_a_newcomer_begins_with_the_first_problem(bench):
    found = today(bench)
    assert (found.next.kind, found.next.problem.slug) == ("first", FIRST)
    assert found.drafts == found.due == [] and found.runs.total == 0 and found.papers.total == 0


def test_code_that_was_begun_comes_before_the_problem_of_the_day(bench):
    first, second = load_shelf()[4:6]
    bench.drafts.save(first.slug, "x = 1", 0, "a" * 16)
    bench.drafts.save(second.slug, "x = 2", 0, "b" * 16)
    found = today(bench)
    assert (found.next.kind, found.next.problem.slug) == ("draft", second.slug)
    assert [one.slug for one in found.drafts] == [first.slug]
    solve(bench, second)
    assert today(bench).next.problem.slug == first.slug


def test_after_the_problem_of_the_day_concepts_that_are_due_are_repeated(bench):
    daily = today(bench).daily.choice.problem
    other = next(one for one in load_shelf() if not set(one.front.tags) & set(daily.front.tags))
    solve(bench, other, at=bench.progress.clock() - 3 * DAY)
    assert (today(bench).next.kind, today(bench).next.problem.slug) == ("daily", daily.slug)
    solve(bench, daily)
    found = today(bench)
    assert found.next.kind == "due" and found.due_total == len(set(other.front.tags))
    assert found.next.problem.slug not in {one.problem.slug for one in found.due}
    for problem in load_shelf():
        if set(problem.front.tags) & set(other.front.tags):
            solve(bench, problem)
    assert today(bench).next.kind == "free"


def test_runs_at_work_come_before_those_that_ended(bench):
    for name in ("one", "two"):
        with RunFolder.create(name, bench.runs) as run:
            run.set_state("failed", "the disk is full")
    with RunFolder.create("three", bench.runs) as run:
        run.set_state("running")
        run.append_metrics({"step": 4, "loss": 1.0, "seconds": 2.0})
        found = runs_today(bench)
        assert [one.state for one in found.at_work] == ["running"] and found.at_work[0].steps == 4
        assert [one.name[:3] for one in found.ended] == ["two", "one"]


def test_papers_are_the_newest_until_something_is_liked(bench):
    bench.library.put(
        [
            Sighting(
                f"2403.0000{n}", f"Paper {n}", "On adapters.", ("A",), ("cs.CL",), version=1,
                published=datetime(2024, 3, n, tzinfo=UTC), announced=date(2024, 3, n),
                announcement=Announcement.NEW,
            )
            for n in range(1, 6)
        ]
    )  # fmt: skip
    found = today(bench).papers
    assert [one.card.title for one in found.papers] == ["Paper 5", "Paper 4", "Paper 3"]
    assert (found.total, found.ranked, found.pending) == (5, False, False)
