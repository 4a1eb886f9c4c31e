"""Practice's services without a command line, with a real judge."""

from __future__ import annotations

import pytest

from etude.app.practice import (
    daily_problem,
    list_problems,
    next_hint,
    open_problem,
    open_progress,
    run_answer,
    standing,
    submit_answer,
)
from etude.core.errors import ProblemError

SLUG = "create-tensordataset"


def test_an_evening_from_the_problem_to_the_verdict(installation):
    progress = open_progress()
    problem = open_problem(progress, SLUG)
    ran = run_answer(problem, problem.starter)
    assert not ran.verdict.accepted and ran.diagnosis is not None and ran.key == ""
    assert "NotImplementedError" in ran.diagnosis.text()
    assert standing(progress).stats.submissions == 0

    states: list[str] = []
    wrong = {name: text for name, text, _ in problem.wrong}["squeezed.py"]
    failed = submit_answer(problem, wrong, show=lambda status: states.append(status.state))
    assert failed.verdict.name.startswith("wrong answer") and failed.diagnosis is not None
    assert failed.key and states[-1] == "done"

    hints = [next_hint(progress, problem) for _ in range(4)]
    assert [len(one.shown) for one in hints] == [1, 2, 3, 3] and hints[0].total == 3

    solved = submit_answer(problem, problem.solution)
    assert solved.verdict.accepted and solved.diagnosis is None and solved.key != failed.key
    stats = standing(progress).stats
    assert (stats.solved, stats.submissions, stats.streak) == (1, 2, 1)
    assert [one.problem.slug for one in list_problems(progress) if one.solved] == [SLUG]
    # Another user has solved nothing.
    assert not any(one.solved for one in list_problems(open_progress("grace")))


def test_lists_are_filtered_and_the_day_has_one_problem(installation):
    progress = open_progress()
    listed = list_problems(progress, collection="llm", difficulty="easy")
    assert listed and {one.problem.collection for one in listed} == {"llm"}
    assert {one.problem.front.difficulty for one in listed} == {"easy"}
    with pytest.raises(ProblemError, match="there is no difficulty 'simple'"):
        list_problems(progress, difficulty="simple")
    daily = daily_problem(progress)
    assert daily == daily_problem() and not daily.solved
