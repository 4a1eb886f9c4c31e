"""Durable queue of submissions: first in, first out, each judged once.

`Queue.add` returns only after the submission is a row of the database; the verdict is a column of
that row. A worker claims the first waiting submission under a lease. If the worker dies, the lease
expires and the submission is first again, because its number has not changed. The verdict of a slow
worker whose lease has expired is dropped, so a submission has exactly one.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, func, select, update
from sqlalchemy.orm import Session

from etude.core.errors import ProblemError, QueueFullError
from etude.practice.judge.verdict import Verdict
from etude.store.practice import Submission

LEASE_SECONDS = 120.0
MOST_WAITING = 5000


@dataclass(frozen=True)
class Ticket:
    """A submission claimed by a worker."""

    number: int
    key: str
    slug: str
    source: str
    seed: int
    attempt: int
    visible_only: bool = False


@dataclass(frozen=True)
class QueueStatus:
    """State and position of a submission."""

    key: str
    state: str
    position: int
    """Number of submissions ahead of it; 0 when it is running or done."""
    verdict: Verdict | None


class Queue:
    """Queue in a database; safe for concurrent threads, processes and machines.

    Args:
        engine: from `store.engine.open_store`.
        most_waiting: number of waiting submissions above which new ones are rejected.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        engine: Engine,
        most_waiting: int = MOST_WAITING,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.engine, self.most_waiting, self.clock = engine, most_waiting, clock

    def add(self, user: str, slug: str, source: str, visible_only: bool = False) -> str:
        """Store a submission and return its key; it is durable from then on.

        Args:
            user: whose it is.
            slug: the problem that it solves.
            source: the code.
            visible_only: run the visible tests only; it counts for nothing then.

        Raises:
            QueueFullError: too many submissions are waiting.
        """
        with Session(self.engine) as session, session.begin():
            waiting = session.scalar(select(func.count()).where(Submission.state == "queued")) or 0
            if waiting >= self.most_waiting:
                raise QueueFullError(
                    f"the queue is full ({waiting} submissions are waiting): try again in a minute"
                )
            submission = Submission(
                key=secrets.token_hex(8),
                user=user,
                slug=slug,
                source=source,
                seed=secrets.randbits(48),
                state="queued",
                attempts=0,
                created=self.clock(),
                visible_only=visible_only,
            )
            session.add(submission)
            session.flush()
            return submission.key

    def claim(self, worker: str, seconds: float = LEASE_SECONDS) -> Ticket | None:
        """Claim the first waiting submission for `seconds`; return None if there is none."""
        now = self.clock()
        free = (Submission.state == "queued") | (
            (Submission.state == "running") & (Submission.lease < now)
        )
        first = select(Submission.number).where(free).order_by(Submission.number).limit(1)
        if self.engine.dialect.name == "postgresql":
            first = first.with_for_update(skip_locked=True)
        taken = (
            update(Submission)
            .where(Submission.number == first.scalar_subquery())
            .values(
                state="running",
                worker=worker,
                lease=now + seconds,
                attempts=Submission.attempts + 1,
            )
            .returning(
                Submission.number,
                Submission.key,
                Submission.slug,
                Submission.source,
                Submission.seed,
                Submission.attempts,
                Submission.visible_only,
            )
        )
        with self.engine.begin() as connection:
            row = connection.execute(taken).first()
        return Ticket(*row) if row else None

    def finish(self, ticket: Ticket, worker: str, verdict: Verdict) -> bool:
        """Store the verdict; return False if the lease has passed to another worker."""
        written = (
            update(Submission)
            .where(
                Submission.number == ticket.number,
                Submission.state == "running",
                Submission.worker == worker,
                Submission.attempts == ticket.attempt,
            )
            .values(
                state="done",
                finished=self.clock(),
                kind=verdict.kind,
                verdict=verdict.to_dict(),
                lease=None,
            )
        )
        with self.engine.begin() as connection:
            return connection.execute(written).rowcount == 1

    def give_back(self, ticket: Ticket, worker: str, counts: bool = True) -> None:
        """Release a claimed submission without a verdict; it keeps its place.

        Args:
            ticket: the claimed submission.
            worker: name of the worker that holds it.
            counts: whether this counts as an attempt.
        """
        back = (
            update(Submission)
            .where(
                Submission.number == ticket.number,
                Submission.state == "running",
                Submission.worker == worker,
                Submission.attempts == ticket.attempt,
            )
            .values(
                state="queued",
                worker=None,
                lease=None,
                attempts=Submission.attempts if counts else Submission.attempts - 1,
            )
        )
        with self.engine.begin() as connection:
            connection.execute(back)

    def give_back_all(self, workers: str) -> int:
        """Release what workers of a process that has ended had claimed; return their number.

        Without this, it would wait until the lease ends. It keeps its place, and the attempt
        counts.

        Args:
            workers: what the names of these workers begin with.
        """
        back = (
            update(Submission)
            .where(
                Submission.state == "running",
                Submission.worker.startswith(workers, autoescape=True),
            )
            .values(state="queued", worker=None, lease=None)
        )
        with self.engine.begin() as connection:
            return connection.execute(back).rowcount

    def status(self, key: str) -> QueueStatus:
        """Return the state and position of a submission.

        Raises:
            ProblemError: no submission has this key.
        """
        with Session(self.engine) as session:
            row = session.scalar(select(Submission).where(Submission.key == key))
            if row is None:
                raise ProblemError(f"unknown submission {key!r}")
            position = 0
            if row.state == "queued":
                before = (Submission.state == "queued") & (Submission.number < row.number)
                position = session.scalar(select(func.count()).where(before)) or 0
            verdict = Verdict.from_dict(row.verdict) if row.verdict is not None else None
            return QueueStatus(key, row.state, position, verdict)

    def waiting(self) -> int:
        """Return the number of submissions without a verdict."""
        with Session(self.engine) as session:
            return session.scalar(select(func.count()).where(Submission.state != "done")) or 0

    def history(self, user: str, slug: str | None = None, most: int = 1000) -> list[dict[str, Any]]:
        """Return a user's submissions, newest first, as plain data."""
        wanted = (
            select(Submission)
            .where(Submission.user == user, Submission.visible_only.is_(False))
            .order_by(Submission.number.desc())
            .limit(most)
        )
        if slug is not None:
            wanted = wanted.where(Submission.slug == slug)
        with Session(self.engine) as session:
            return [
                {
                    "key": row.key,
                    "slug": row.slug,
                    "state": row.state,
                    "kind": row.kind,
                    "created": row.created,
                    "finished": row.finished,
                    "source": row.source,
                }
                for row in session.scalars(wanted)
            ]
