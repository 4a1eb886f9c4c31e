"""Judges on several machines, by Ray: the same queue, the same sandbox, the same verdicts.

Whoever has the database takes submissions from the queue and hands each to an actor on some
machine; the actor has a pool of its own there. Machines need Ray, Etude and nothing else: no
database, no shelf, no password. A problem goes to them as the zip that `bundle` makes, once a
machine.

A machine that dies takes with it the runs that it had begun. Each of them goes to the next actor
that is free, inside the same attempt, since the submission is not to blame; where no machine is
left it goes back to its place in the queue and is begun again when one returns.
"""

# What Ray leaves untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUntypedFunctionDecorator=false
# pyright: reportMissingTypeStubs=false, reportMissingImports=false
from __future__ import annotations

import hashlib
import logging
import os
import socket
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from etude.core.errors import JudgeError
from etude.core.extras import require_extra
from etude.practice.bundle import export_problems, import_problems
from etude.practice.judge.judge import Judge
from etude.practice.judge.pool import Pool
from etude.practice.judge.verdict import Verdict
from etude.practice.problem import Problem
from etude.practice.worker import JudgesAwayError

LOG = logging.getLogger(__name__)
START_SECONDS = 180.0
AWAY_SECONDS = 30.0
"""How long a submission waits for a machine before it goes back into the queue."""
KNOCK_SECONDS = 10.0
RUN_SECONDS = 90.0
"""A run that has no answer after this is lost: less than the queue's lease, more than any limit."""


class JudgeActor:
    """A pool on one machine; runs as a Ray actor with one thread a slot."""

    def __init__(self, slots: int, require: Sequence[str]) -> None:
        self._slots, self._require = slots, require
        self._judge: Judge | None = None
        self._shelf = tempfile.TemporaryDirectory(prefix="etude-shelf-")
        self._problems: dict[str, Problem] = {}
        self._lock = threading.Lock()

    def start(self) -> str:
        """Start the sandbox where it is not there yet, and return its isolation, for people.

        Not done by the constructor: Ray would try one that fails again and again.
        """
        with self._lock:
            if self._judge is None:
                self._judge = Judge(Pool(self._slots, self._require))
            return self._judge.pool.level.describe()

    def judge(self, digest: str, archive: bytes, source: str, seed: int | None) -> dict[str, Any]:
        """Return the verdict on `source` as plain data.

        Args:
            digest: of `archive`, so that each problem is unpacked once.
            archive: the zip of one problem.
            source: the submission.
            seed: of the tests' numbers.
        """
        self.start()
        with self._lock:
            if digest not in self._problems:
                shelf = Path(self._shelf.name)
                file = shelf / f"{digest}.zip"
                file.write_bytes(archive)
                (self._problems[digest],) = import_problems(file, shelf / digest)
        assert self._judge is not None
        return self._judge.judge(self._problems[digest], source, seed).to_dict()


class RayJudges:
    """Judges submissions on the machines of a Ray cluster; what `Workers` needs of a judge.

    Args:
        address: of the cluster; `local` starts one on this machine, `auto` finds the one here.
        actors: how many judges, spread over the machines.
        slots: runs at a time on each; each takes one of a machine's cores.
        require: layers of isolation without which no machine may judge.

    Raises:
        MissingExtraError: Ray is not installed.
        JudgeError: no cluster answers, or no machine gives what is required.
    """

    def __init__(
        self,
        address: str = "auto",
        actors: int = 1,
        slots: int = 2,
        require: Sequence[str] = ("limits", "seccomp", "landlock"),
    ) -> None:
        # Ray counts its users over the network unless it is told not to.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        require_extra("ray", "judging on several machines", "ray")
        import ray
        import ray.exceptions

        self._ray = ray
        self.slots = actors * slots
        self._own = not ray.is_initialized()
        if self._own:
            _knock(address)
            try:
                ray.init(
                    address=None if address == "local" else address,
                    include_dashboard=False if address == "local" else None,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    namespace="etude",
                )
            except (ConnectionError, ValueError, RuntimeError) as error:
                first = str(error).strip().splitlines()[0]
                raise JudgeError(f"no Ray cluster at {address!r}: {first}") from error
        remote = ray.remote(JudgeActor)
        self._actors: list[Any] = [
            remote.options(
                num_cpus=slots,
                max_concurrency=slots,
                max_restarts=-1,
                scheduling_strategy="SPREAD",
            ).remote(slots, tuple(require))
            for _ in range(actors)
        ]
        self._slots_each = slots
        self._busy = [0] * actors
        self._away: set[int] = set()
        self._changed = threading.Condition()
        self._closed = threading.Event()
        self._archives: dict[str, tuple[str, Any]] = {}
        self.levels = self._wait_for_all(address)

    def __enter__(self) -> RayJudges:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def workers(self) -> int:
        """How many to call `judge` at a time."""
        return self.slots

    def describe(self) -> str:
        """Return one line for people: how many judges, with which isolation."""
        return f"{len(self._actors)} judges, {' and '.join(sorted(set(self.levels)))}"

    def judge(self, problem: Problem, source: str, seed: int | None = None) -> Verdict:
        """Return the verdict on `source`, from whichever machine is free.

        Raises:
            JudgesAwayError: there is no machine now.
        """
        digest, archive = self._archive(problem)
        while True:
            index = self._take()
            try:
                call = self._actors[index].judge.remote(digest, archive, source, seed)
                return Verdict.from_dict(self._ray.get(call, timeout=RUN_SECONDS))
            except (
                self._ray.exceptions.RayActorError,
                self._ray.exceptions.GetTimeoutError,
                self._ray.exceptions.ObjectLostError,
            ) as error:
                LOG.warning("judge %d is away: %s", index, type(error).__name__)
                self._miss(index)
            except self._ray.exceptions.RayTaskError as error:
                raise error.cause from error
            finally:
                with self._changed:
                    self._busy[index] -= 1
                    self._changed.notify()

    def _take(self) -> int:
        """Return the least busy actor that is there, with one more slot of it taken."""

        def free() -> list[int]:
            return [
                index
                for index, busy in enumerate(self._busy)
                if busy < self._slots_each and index not in self._away
            ]

        with self._changed:
            if not self._changed.wait_for(free, AWAY_SECONDS):
                raise JudgesAwayError(
                    f"no machine judges: {len(self._away)} of {len(self._actors)} are away"
                )
            index = min(free(), key=lambda each: self._busy[each])
            self._busy[index] += 1
            return index

    def close(self) -> None:
        """End the actors, and the cluster where it was started here."""
        self._closed.set()
        for actor in self._actors:
            with suppress(Exception):
                self._ray.kill(actor)
        if self._own:
            self._ray.shutdown()

    def _archive(self, problem: Problem) -> tuple[str, Any]:
        """Return the digest of a problem's zip, and the zip where all machines can get it."""
        with self._changed:
            if problem.slug not in self._archives:
                with tempfile.TemporaryDirectory() as folder:
                    file = Path(folder) / "problem.zip"
                    export_problems([problem], file)
                    content = file.read_bytes()
                digest = hashlib.sha256(content).hexdigest()[:16]
                self._archives[problem.slug] = digest, self._ray.put(content)
            return self._archives[problem.slug]

    def _wait_for_all(self, address: str) -> list[str]:
        calls = [actor.start.remote() for actor in self._actors]
        try:
            return self._ray.get(calls, timeout=START_SECONDS)
        except self._ray.exceptions.GetTimeoutError as error:
            self.close()
            raise JudgeError(
                f"the cluster at {address!r} has not the cores for {len(calls)} judges "
                f"of {self._slots_each} runs each"
            ) from error
        except self._ray.exceptions.RayTaskError as error:
            self.close()
            raise JudgeError(str(error.cause).splitlines()[0]) from error

    def _miss(self, index: int) -> None:
        """Leave an actor alone until it answers again, on its machine or another."""
        with self._changed:
            if index in self._away:
                return  # another of its slots has noticed
            self._away.add(index)
        threading.Thread(target=self._mend, args=(index,), daemon=True).start()

    def _mend(self, index: int) -> None:
        while not self._closed.is_set():
            try:
                self._ray.get(self._actors[index].start.remote(), timeout=AWAY_SECONDS)
                break
            except Exception:  # of whatever kind: it is not back
                self._closed.wait(0.5)
        with self._changed:
            self._away.discard(index)
            self._changed.notify_all()


def _knock(address: str) -> None:
    """See whether anybody is at `host:port` or `ray://host:port`: Ray itself tries for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), KNOCK_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise JudgeError(f"no Ray cluster at {address!r}: {error}") from error
