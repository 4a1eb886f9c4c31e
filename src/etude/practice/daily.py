"""Daily problem: stable within a day, without repeats, weighted by the user's record.

Once chosen, it is stored. The choice is a weighted random draw whose noise is a hash of day and
problem, so users without a record get the same problem on the same day. A record (concepts due,
problems solved, level) changes the weights. No problem repeats until the shelf is exhausted.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date

from sqlalchemy import Engine, delete, select
from sqlalchemy.orm import Session

from etude.core.errors import ProblemError
from etude.practice.problem import Problem
from etude.practice.progress import UserProgress
from etude.store.practice import Daily
from etude.store.upsert import insert_or_ignore


@dataclass(frozen=True)
class Choice:
    """The problem of a day and the reason for it."""

    day: date
    problem: Problem
    why: str


def problem_of_the_day(
    engine: Engine, progress: UserProgress, shelf: Sequence[Problem], *, store: bool = True
) -> Choice:
    """Return the user's problem of today, choosing it if necessary.

    Args:
        engine: the database.
        progress: the user's.
        shelf: all problems.
        store: keep the choice; otherwise nothing is written, and what is solved in between may
            change it.

    Raises:
        ProblemError: the shelf is empty.
    """
    if not shelf:
        raise ProblemError("the shelf has no problems")
    day, known = progress.today(), {problem.slug: problem for problem in shelf}
    with Session(engine) as session:
        rows = list(
            session.scalars(select(Daily).where(Daily.user == progress.user).order_by(Daily.number))
        )
    for row in rows:
        if row.day == day.isoformat() and row.slug in known:
            return Choice(day, known[row.slug], row.why)
    used = [row.slug for row in rows if row.slug in known and row.day != day.isoformat()]
    # Rounds over the shelf exclude the problems of the current round, and yesterday's.
    this_round = set(used[len(used) - len(used) % len(known) :])
    open_ones = [
        problem
        for problem in shelf
        if problem.slug not in this_round and problem.slug not in used[-1:]
    ] or list(shelf)
    weigh = _weights(progress)
    chosen = max(open_ones, key=lambda problem: _chance(day, problem, weigh(problem)[0]))
    why = weigh(chosen)[1]
    if not store:
        return Choice(day, chosen, why)
    own = {"user": progress.user, "day": day.isoformat()}
    with engine.begin() as connection:
        # Today's row names a problem no longer on the shelf, or another process's choice.
        connection.execute(delete(Daily).filter_by(**own).where(Daily.slug.not_in(known)))
        row = {**own, "slug": chosen.slug, "why": why}
        was_first = insert_or_ignore(connection, Daily, [row]) > 0
    if not was_first:
        return problem_of_the_day(engine, progress, shelf)
    return Choice(day, chosen, why)


def _weights(progress: UserProgress) -> Callable[[Problem], tuple[float, str]]:
    due, solved = progress.due(), progress.solved()
    level = 0 if len(solved) < 5 else 1 if len(solved) < 20 else 2
    fitting = {"easy": (4.0, 2.0, 1.0), "medium": (1.0, 2.0, 2.0), "hard": (0.2, 0.7, 2.0)}

    def weigh(problem: Problem) -> tuple[float, str]:
        weight = fitting[problem.front.difficulty][level]
        again = [tag for tag in problem.front.tags if tag in due]
        if again:
            return weight * 8.0, f"{again[0]} is due again"
        if problem.slug in solved:
            return weight * 0.1, "solved before"
        return weight, "new to you"

    return weigh


def _chance(day: date, problem: Problem, weight: float) -> float:
    """Return the key of a weighted draw: log of the weight plus Gumbel noise from a hash."""
    digest = hashlib.sha256(f"{day.isoformat()} {problem.front.id}".encode()).digest()
    uniform = (int.from_bytes(digest[:7], "big") + 0.5) / 2**56
    return math.log(weight) - math.log(-math.log(uniform))
