"""Worker threads that take submissions from the queue and judge them, one per slot.

A worker survives an unavailable database and a failing judge: it returns its submission to the
queue. After three attempts the verdict is a system fault, which never counts against the learner.
"""

from __future__ import annotations

import gc
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable
from typing import Protocol

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from etude.core.errors import ProblemError
from etude.practice.judge.verdict import Verdict
from etude.practice.problem import Problem
from etude.practice.queue import Queue, Ticket

LOG = logging.getLogger(__name__)
MOST_ATTEMPTS = 3
IDLE_SECONDS = 0.25
Judged = Callable[[Ticket, Verdict], None]


def workers_of(pid: int) -> str:
    """Return what the names of all workers of a process of this machine begin with."""
    return f"{os.uname().nodename[:20]}-{pid}-"


class JudgesAwayError(Exception):
    """No judge is available; the submission keeps its place and its attempts."""


class Bench(Protocol):
    """Interface of judges: `judge.judge.Judge` on this machine, `cluster.RayJudges` on several."""

    @property
    def slots(self) -> int:
        """Number of submissions that run at once."""
        ...

    @property
    def workers(self) -> int:
        """Number of threads that may call `judge`."""
        ...

    def judge(
        self, problem: Problem, source: str, seed: int | None = None, visible_only: bool = False
    ) -> Verdict:
        """Return the verdict on `source`, with the tests' random numbers made from `seed`."""
        ...


class Workers:
    """Pool of worker threads, as many as keep the judge busy.

    Args:
        engine: the database of the queue.
        judge: the judge.
        find: returns a problem by its slug.
        judged: called after each stored verdict on all tests, to record progress.
    """

    def __init__(
        self,
        engine: Engine,
        judge: Bench,
        find: Callable[[str], Problem],
        judged: Judged | None = None,
    ) -> None:
        self.queue, self.judge, self.find, self.judged = Queue(engine), judge, find, judged
        self.name = f"{workers_of(os.getpid())}{secrets.token_hex(3)}"
        self._wake, self._stopping = threading.Event(), threading.Event()
        self._problems: dict[str, Problem] = {}
        self._busy, self._rested, self._counting = 0, time.monotonic(), threading.Lock()
        self._threads = [
            threading.Thread(
                target=self._work, args=(f"{self.name}-{slot}",), name=f"judge-{slot}", daemon=True
            )
            for slot in range(judge.workers)
        ]

    def __enter__(self) -> Workers:
        # torch alone has 300,000 permanent objects: exclude them from garbage collection.
        gc.collect()
        gc.freeze()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def wake(self) -> None:
        """Wake idle workers after a submission was added."""
        self._wake.set()

    def idle_seconds(self) -> float:
        """Return for how long there has been nothing to judge."""
        with self._counting:
            return 0.0 if self._busy else time.monotonic() - self._rested

    def stop(self) -> None:
        """Stop after finishing the submissions in progress."""
        self._stopping.set()
        self._wake.set()
        for thread in self._threads:
            thread.join()
        gc.unfreeze()

    def _work(self, worker: str) -> None:
        pause = IDLE_SECONDS
        while not self._stopping.is_set():
            try:
                ticket = self.queue.claim(worker)
                if ticket is None:
                    self._wake.wait(IDLE_SECONDS)
                    self._wake.clear()
                    continue
                with self._counting:
                    self._busy += 1
                try:
                    self._one(worker, ticket)
                finally:
                    with self._counting:
                        self._busy, self._rested = self._busy - 1, time.monotonic()
                pause = IDLE_SECONDS
            except SQLAlchemyError as error:  # such as a full disk or a server that restarts
                LOG.warning(
                    "the database does not answer, trying again in %.1f s: %s", pause, error
                )
                self._stopping.wait(pause)
                pause = min(pause * 2, 30.0)

    def _one(self, worker: str, ticket: Ticket) -> None:
        if ticket.attempt > MOST_ATTEMPTS:
            verdict = Verdict(
                "system fault",
                says="the judge failed three times; the submission is not to blame",
                seed=ticket.seed,
            )
        else:
            try:
                verdict = self._verdict(ticket)
            except JudgesAwayError as away:
                LOG.warning("%s; submissions stay in the queue", away)
                self.queue.give_back(ticket, worker, counts=False)
                self._stopping.wait(1.0)
                return
        if verdict.kind == "system fault" and ticket.attempt < MOST_ATTEMPTS:
            self.queue.give_back(ticket, worker)
            return
        # An unavailable database delays the verdict, at most until the lease expires.
        deadline = time.monotonic() + 60
        while True:
            try:
                counts = self.queue.finish(ticket, worker, verdict)
                break
            except SQLAlchemyError:
                if time.monotonic() > deadline or self._stopping.wait(0.5):
                    raise
        if counts and self.judged is not None and not ticket.visible_only:
            self.judged(ticket, verdict)

    def _verdict(self, ticket: Ticket) -> Verdict:
        try:
            if ticket.slug not in self._problems:
                self._problems[ticket.slug] = self.find(ticket.slug)
            problem = self._problems[ticket.slug]
            return self.judge.judge(problem, ticket.source, ticket.seed, ticket.visible_only)
        except JudgesAwayError:
            raise
        except ProblemError as error:
            return Verdict("system fault", says=str(error), seed=ticket.seed)
        except Exception as error:
            LOG.exception("judging %s failed", ticket.key)
            return Verdict(
                "system fault", says=f"{type(error).__name__}: {error}", seed=ticket.seed
            )
