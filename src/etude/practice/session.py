"""Submission workflow of the command line: queue a submission and wait for its verdict.

A submission always goes into the queue. Running workers (`etude practice judge`) answer it in
milliseconds; without any, this process starts a judge of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from etude.core.errors import ProblemError
from etude.practice.judge.judge import Judge
from etude.practice.judge.pool import Pool
from etude.practice.judge.verdict import Verdict
from etude.practice.problem import Problem, find_problem
from etude.practice.progress import UserProgress
from etude.practice.queue import Queue, QueueStatus, Ticket
from etude.practice.worker import Workers
from etude.store.practice import Submission

OTHERS_SECONDS = 0.4
WAIT_SECONDS = 300.0
Show = Callable[[QueueStatus], None]


def recorder(
    engine: Engine, find: Callable[[str], Problem] = find_problem
) -> Callable[[Ticket, Verdict], None]:
    """Return a callback for `Workers` that updates the user's concepts after a verdict."""

    def judged(ticket: Ticket, verdict: Verdict) -> None:
        with Session(engine) as session:
            user = session.scalar(select(Submission.user).where(Submission.key == ticket.key))
        if user is not None:
            UserProgress(engine, user).record(find(ticket.slug), verdict)

    return judged


def submit(
    engine: Engine,
    problem: Problem,
    source: str,
    user: str,
    show: Show | None = None,
    require: tuple[str, ...] | None = None,
) -> tuple[str, Verdict]:
    """Queue a submission and return its key and verdict.

    Args:
        engine: the database.
        problem: the problem that it solves.
        source: the submission.
        user: name of the user.
        show: called whenever the state changes.
        require: required layers of isolation, if this process must start a judge.
    """
    queue = Queue(engine)
    key = queue.add(user, problem.slug, source)
    # Idle workers poll four times a second; a busy worker shows by an advancing queue.
    if verdict := _wait(queue, key, OTHERS_SECONDS, show, unless_taken=True):
        return key, verdict

    def find(slug: str) -> Problem:
        return problem if slug == problem.slug else find_problem(slug)

    started = Pool(1, require) if require else Pool(1)
    with started as pool, Workers(engine, Judge(pool), find, recorder(engine, find)):
        verdict = _wait(queue, key, WAIT_SECONDS, show)
    if verdict is None:
        raise ProblemError(f"no verdict after {WAIT_SECONDS:g} s; submission {key} remains queued")
    return key, verdict


def _wait(
    queue: Queue, key: str, seconds: float, show: Show | None, unless_taken: bool = False
) -> Verdict | None:
    """Wait for the verdict; return None after a timeout during which no worker was active."""
    deadline = time.monotonic() + seconds
    last: tuple[str, int] | None = None
    pause = 0.002
    while True:
        status = queue.status(key)
        if show is not None and (status.state, status.position) != last:
            show(status)
        moved = last is not None and (status.state, status.position) != last
        last = (status.state, status.position)
        if status.verdict is not None:
            return status.verdict
        if unless_taken and (status.state == "running" or moved):
            deadline = time.monotonic() + WAIT_SECONDS
        if time.monotonic() > deadline:
            return None
        time.sleep(pause)
        pause = min(pause * 1.2, 0.1)
