import itertools
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace

import pytest

from etude.core.errors import ProblemError
from etude.practice.daily import problem_of_the_day
from etude.practice.judge.verdict import Verdict
from etude.practice.problem import load_shelf
from etude.practice.progress import UserProgress, streaks
from etude.practice.queue import Queue

DAY = date(2026, 3, 10)


def days(*back):
    return [DAY - timedelta(days=number) for number in back]


@pytest.mark.parametrize(
    ("active", "streak"),
    [
        ((), (0, 0)),
        ((0,), (1, 1)),
        ((1, 2, 3), (3, 3)),
        ((0, 1, 3, 4), (4, 4)),
        ((0, 2, 4), (2, 2)),
        ((0, 3, 4), (1, 2)),
        ((2, 3), (2, 2)),
        ((3, 4), (0, 2)),
        ((0, 2, 3, 4, 5, 6, 7, 8, 9, 11), (10, 10)),
        ((2, 4), (1, 2)),
        ((0, 2, 4, 6), (2, 2)),
    ],
)
def test_a_streak_forgives_one_missed_day_in_seven(active, streak):
    assert streaks(days(*active), DAY) == streak


class Clock:
    def __init__(self, text):
        self.now = datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()

    def __call__(self):
        return self.now

    def day(self, count=1):
        self.now += 86400 * count


def solve(engine, clock, user="ada", slug="x"):
    queue = Queue(engine, clock=clock)
    queue.add(user, slug, "")
    queue.finish(queue.claim("w"), "w", Verdict("accepted"))


def test_days_are_those_of_the_learners_own_calendar(engine):
    clock = Clock("2026-03-10T05:30:00")
    progress = UserProgress(engine, "ada", clock)
    progress.set_timezone("America/Los_Angeles")
    solve(engine, clock)
    assert progress.stats().by_day == {date(2026, 3, 9): 1}
    progress.set_timezone("Asia/Tokyo")
    assert progress.today() == date(2026, 3, 10)
    with pytest.raises(ProblemError, match="Europe/Berlin"):
        progress.set_timezone("Mars/Olympus")


def test_a_streak_lives_through_midnight_utc(engine):
    clock = Clock("2026-03-10T23:50:00")
    progress = UserProgress(engine, "ada", clock)
    progress.set_timezone("America/New_York")
    solve(engine, clock)
    clock.now += 1200  # another day in UTC, the same in New York
    assert progress.stats().streak == 1
    solve(engine, clock)
    assert progress.stats().streak == 1


PROBLEM = SimpleNamespace(front=SimpleNamespace(tags=["softmax", "masks"]))


def test_concepts_climb_when_right_and_fall_when_wrong(engine):
    clock = Clock("2026-03-10T12:00:00")
    progress = UserProgress(engine, "ada", clock)
    progress.record(PROBLEM, Verdict("accepted"))
    assert {one.name: (one.mastery, one.due) for one in progress.concepts()} == {
        "softmax": (0.2, date(2026, 3, 11)),
        "masks": (0.2, date(2026, 3, 11)),
    }
    progress.record(PROBLEM, Verdict("accepted"))
    assert progress.concepts()[0].mastery == 0.2, "the same day proves nothing new"
    clock.day()
    assert progress.due() == ["masks", "softmax"]
    progress.record(PROBLEM, Verdict("accepted"))
    assert progress.due() == [] and progress.concepts()[0].due == date(2026, 3, 14)
    progress.record(PROBLEM, Verdict("wrong answer", "values", concept="masks"))
    weakest = progress.concepts()[0]
    assert (weakest.name, weakest.mastery, weakest.due, weakest.wrong) == (
        "masks",
        0.0,
        date(2026, 3, 12),
        1,
    )


@pytest.mark.parametrize("kind", ["system fault", "compile error"])
def test_what_shows_no_lack_of_knowledge_changes_nothing(engine, kind):
    progress = UserProgress(engine, "ada")
    progress.record(PROBLEM, Verdict(kind))
    assert progress.concepts() == []


def shelf(count):
    (one, *_) = load_shelf()
    return [
        replace(
            one,
            slug=f"p{index}",
            front=one.front.model_copy(update={"id": f"{index:08x}", "tags": [f"t{index}"]}),
        )
        for index in range(count)
    ]


def test_the_daily_problem_stays_and_does_not_repeat_until_all_were_used(engine):
    clock = Clock("2026-03-10T12:00:00")
    progress = UserProgress(engine, "ada", clock)
    problems = shelf(7)
    chosen = []
    for _ in range(21):
        choice = problem_of_the_day(engine, progress, problems)
        assert (
            problem_of_the_day(engine, progress, list(reversed(problems))).problem == choice.problem
        )
        chosen.append(choice.problem.slug)
        clock.day()
    for start in (0, 7, 14):
        assert len(set(chosen[start : start + 7])) == 7
    assert all(one != other for one, other in itertools.pairwise(chosen))


def test_people_without_a_record_meet_the_same_problem(engine):
    clock = Clock("2026-03-10T12:00:00")
    found = {
        problem_of_the_day(engine, UserProgress(engine, name, clock), shelf(9)).problem.slug
        for name in ("ada", "bob", "eve")
    }
    assert len(found) == 1


def test_a_concept_that_is_due_brings_its_problem_back(engine):
    problems, hits = shelf(12), 0
    for index in range(12):
        clock = Clock("2026-03-10T12:00:00")
        progress = UserProgress(engine, f"learner{index}", clock)
        wanted = SimpleNamespace(front=SimpleNamespace(tags=["t3"]))
        progress.record(wanted, Verdict("wrong answer", "values", concept="t3"))
        clock.day(1 + index)
        choice = problem_of_the_day(engine, progress, problems)
        hits += choice.problem.slug == "p3"
        assert (choice.why == "t3 is due again") == (choice.problem.slug == "p3")
    # Eight times the weight of eleven others: 42 % expected, 8 % without. P(X >= 3) is 0.93 at
    # 42 % and 0.06 at 8 %; the days are fixed, so the outcome is, too.
    assert hits >= 3


def test_a_problem_that_left_the_shelf_is_replaced(engine):
    progress = UserProgress(engine, "ada", Clock("2026-03-10T12:00:00"))
    problems = shelf(5)
    first = problem_of_the_day(engine, progress, problems).problem
    left = [problem for problem in problems if problem.slug != first.slug]
    again = problem_of_the_day(engine, progress, left).problem
    assert again.slug != first.slug
    assert problem_of_the_day(engine, progress, left).problem == again
    with pytest.raises(ProblemError, match="no problems"):
        problem_of_the_day(engine, progress, [])
