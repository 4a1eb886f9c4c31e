"""Practice: find problems, judge answers, hints and explanations, the daily problem, progress."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from etude.core.errors import ProblemError

if TYPE_CHECKING:
    from etude.core.chat_client import ChatEndpoint
    from etude.practice.daily import Choice
    from etude.practice.diagnose import Diagnosis
    from etude.practice.explanations import Explanations, ModelRecord
    from etude.practice.judge.pool import Pool
    from etude.practice.judge.verdict import Verdict
    from etude.practice.problem import Problem
    from etude.practice.progress import Stats, UserProgress
    from etude.practice.queue import QueueStatus
    from etude.practice.tutor import Explanation


@dataclass(frozen=True)
class ListedProblem:
    """A problem in a list."""

    problem: Problem
    solved: bool


@dataclass(frozen=True)
class Judged:
    """A verdict, and why an answer failed."""

    problem: Problem
    verdict: Verdict
    diagnosis: Diagnosis | None
    """None if the answer was accepted."""
    key: str = ""
    """Of the submission; empty if it was not recorded."""


@dataclass(frozen=True)
class Hints:
    """The hints that were taken so far."""

    shown: list[str]
    total: int


@dataclass(frozen=True)
class Daily:
    """The problem of the day."""

    choice: Choice
    solved: bool


@dataclass(frozen=True)
class Standing:
    """What a user has done so far."""

    stats: Stats
    models: list[ModelRecord]
    """How often each model explained, and whether it helped."""


def open_progress(user: str | None = None) -> UserProgress:
    """Open the progress of a user, None is the current one, in the time zone that they chose."""
    from etude.core.user import current_user
    from etude.practice.progress import UserProgress
    from etude.store.engine import open_store

    progress = UserProgress(open_store(), user or current_user("practice"))
    use_timezone(progress)
    return progress


def use_timezone(progress: UserProgress) -> None:
    """Let days begin in the time zone that the user chose, or in this machine's."""
    from etude.app.settings import UserSettings
    from etude.core.timezone import local_timezone

    chosen = UserSettings(progress.engine, progress.user).read().timezone
    progress.set_timezone(chosen or local_timezone())


def open_explanations(user: str | None = None) -> Explanations:
    """Open the models' explanations for a user; None is the current one."""
    from etude.core.user import current_user
    from etude.practice.explanations import Explanations
    from etude.store.engine import open_store

    return Explanations(open_store(), user or current_user("practice"))


def open_pool(require: Sequence[str] | None = None, slots: int = 1) -> Pool:
    """Start a sandbox.

    Args:
        require: isolation layers without which nothing is judged; None takes the default ones.
        slots: submissions judged at the same time.

    Raises:
        JudgeError: it cannot start here, or not with the isolation that is required.
    """
    from etude.practice.judge.pool import Pool

    return Pool(slots, require) if require else Pool(slots)


def list_problems(
    progress: UserProgress,
    *,
    collection: str | None = None,
    difficulty: str | None = None,
    track: str | None = None,
    shelf: Path | None = None,
) -> list[ListedProblem]:
    """Return the problems of a shelf, of one collection, difficulty or track only if named.

    Raises:
        ProblemError: there is no such collection, difficulty or track.
    """
    from etude.practice.problem import COLLECTIONS, DIFFICULTIES, load_shelf
    from etude.practice.tracks import find_track

    for given, known, what in (
        (collection, COLLECTIONS, "collection"),
        (difficulty, DIFFICULTIES, "difficulty"),
    ):
        if given is not None and given not in known:
            raise ProblemError(f"there is no {what} {given!r}; there are {', '.join(known)}")
    solved = progress.solved()
    found = load_shelf(shelf)
    if track is not None:
        by_slug = {problem.slug: problem for problem in found}
        steps = [step.problem for step in find_track(track).steps]
        found = [by_slug[slug] for slug in steps if slug in by_slug]
    return [
        ListedProblem(problem, problem.slug in solved)
        for problem in found
        if collection in (None, problem.collection)
        and difficulty in (None, problem.front.difficulty)
    ]


def open_problem(progress: UserProgress, slug: str, shelf: Path | None = None) -> Problem:
    """Return a problem, and record that its user has begun it.

    Raises:
        ProblemError: there is no such problem.
    """
    from etude.practice.problem import find_problem

    problem = find_problem(slug, shelf)
    progress.open(slug)
    return problem


def run_answer(
    problem: Problem,
    source: str,
    *,
    visible_only: bool = True,
    require: Sequence[str] | None = None,
) -> Judged:
    """Judge an answer at once, by the visible tests or by all, without recording it.

    Raises:
        JudgeError: the sandbox cannot start.
    """
    from etude.practice.judge.judge import Judge

    with open_pool(require) as pool:
        verdict = Judge(pool).judge(problem, source, visible_only=visible_only)
    return _judged(problem, source, verdict)


def submit_answer(
    problem: Problem,
    source: str,
    *,
    user: str | None = None,
    require: Sequence[str] | None = None,
    show: Callable[[QueueStatus], None] | None = None,
) -> Judged:
    """Submit an answer to all tests and wait for the verdict.

    Args:
        problem: what is solved.
        source: the answer.
        user: whose it is; None is the current user.
        require: isolation layers that are required if this process must start a judge.
        show: called whenever the submission's place in the queue changes.

    Raises:
        ProblemError: there is no verdict in time; the submission is kept.
        QueueFullError: too many submissions wait.
    """
    from etude.core.user import current_user
    from etude.practice.session import submit
    from etude.store.engine import open_store

    layers = tuple(require) if require else None
    owner = user or current_user("practice")
    key, verdict = submit(open_store(), problem, source, owner, show, layers)
    return _judged(problem, source, verdict, key)


def _judged(problem: Problem, source: str, verdict: Verdict, key: str = "") -> Judged:
    from etude.practice.diagnose import diagnose

    diagnosis = None if verdict.accepted else diagnose(problem, source, verdict)
    return Judged(problem, verdict, diagnosis, key)


def next_hint(progress: UserProgress, problem: Problem) -> Hints:
    """Take the next hint, and return all that were taken; the last one is given again."""
    hints = problem.hints
    level = min(progress.hints_taken(problem.slug) + 1, len(hints))
    progress.take_hint(problem.slug, level)
    return Hints(list(hints[:level]), len(hints))


def explain_failure(
    endpoint: ChatEndpoint,
    source: str,
    judged: Judged,
    questions: Sequence[str] = (),
    *,
    explanations: Explanations | None = None,
) -> Iterator[Explanation]:
    """Let a language model explain why an answer fails; yields the explanation as it grows.

    The last one yielded is kept for its user, so that it can be rated.

    Args:
        endpoint: the model.
        source: the answer that failed.
        judged: how it failed.
        questions: what its user wants to know, too.
        explanations: of the user whose answer it is; None is the current user.

    Raises:
        ChatError: the model cannot be reached.
    """
    from etude.practice import tutor

    if judged.diagnosis is None:
        return
    explanation = tutor.Explanation(endpoint.model)
    for explanation in tutor.explain(
        endpoint, judged.problem, source, judged.verdict, judged.diagnosis, list(questions)
    ):
        yield explanation
    (explanations or open_explanations()).add(judged.problem.slug, explanation, judged.key)


def daily_problem(
    progress: UserProgress | None = None, shelf: Path | None = None, *, choose: bool = True
) -> Daily:
    """Return the problem of the day.

    Args:
        progress: whose; None is the current user's.
        shelf: folder of problems; None is the shipped one.
        choose: store the choice where none is stored yet; otherwise nothing is written.
    """
    from etude.practice.daily import problem_of_the_day
    from etude.practice.problem import load_shelf

    own = progress or open_progress()
    choice = problem_of_the_day(own.engine, own, load_shelf(shelf), store=choose)
    return Daily(choice, choice.problem.slug in own.solved())


def standing(progress: UserProgress) -> Standing:
    """Return what a user has solved, and how the models that explained did."""
    return Standing(progress.stats(), open_explanations(progress.user).by_model())
