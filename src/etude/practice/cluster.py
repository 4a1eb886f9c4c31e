"""Judging on several machines with Ray: the same queue, sandbox and verdicts.

The process that has the database takes submissions from the queue and sends each to an actor on
some machine, which has its own sandbox pool. Machines need only Ray and Etude: no database, no
shelf, no password. A problem is sent to each machine once, as the zip that `bundle` writes.

When a machine dies, its unfinished runs go to the next free actor within the same attempt, since
the submission is not to blame; if no machine is left, a submission returns to its place in the
queue and is judged when a machine is back.
"""

# What Ray leaves untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUntypedFunctionDecorator=false
# pyright: reportMissingTypeStubs=false, reportMissingImports=false
from __future__ import annotations

import hashlib
import logging
import os
import signal
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
"""Seconds that a submission waits for a machine before it returns to the queue."""
KNOCK_SECONDS = 10.0
RUN_SECONDS = 90.0
"""Timeout of a run in seconds: less than the queue's lease, more than any problem's limit."""


class JudgeActor:
    """Judge on one machine; a Ray actor with one thread per slot."""

    def __init__(self, slots: int, require: Sequence[str]) -> None:
        self._slots, self._require = slots, require
        self._judge: Judge | None = None
        self._shelf = tempfile.TemporaryDirectory(prefix="etude-shelf-")
        self._problems: dict[str, Problem] = {}
        self._lock = threading.Lock()

    def start(self) -> str:
        """Start the sandbox unless it runs, and return a description of its isolation.

        Not done by the constructor: Ray would retry a failing constructor for ever.
        """
        with self._lock:
            if self._judge is None:
                self._judge = Judge(Pool(self._slots, self._require))
            return self._judge.pool.level.describe()

    def judge(
        self, digest: str, archive: bytes, source: str, seed: int | None, visible_only: bool
    ) -> dict[str, Any]:
        """Return the verdict on `source` as plain data.

        Args:
            digest: of `archive`, so that each problem is unpacked once.
            archive: the zip of one problem.
            source: the submission.
            seed: of the tests' random numbers.
            visible_only: run the visible tests only.
        """
        self.start()
        with self._lock:
            if digest not in self._problems:
                shelf = Path(self._shelf.name)
                file = shelf / f"{digest}.zip"
                file.write_bytes(archive)
                (self._problems[digest],) = import_problems(file, shelf / digest)
        assert self._judge is not None
        problem = self._problems[digest]
        return self._judge.judge(problem, source, seed, visible_only).to_dict()


class RayJudges:
    """Judges submissions on the machines of a Ray cluster; implements `worker.Bench`.

    Args:
        address: of the cluster; `local` starts one on this machine, `auto` finds a running one.
        actors: number of judges, spread over the machines.
        slots: concurrent runs of each; each run takes one core.
        require: layers of isolation that every machine must have.

    Raises:
        MissingExtraError: Ray is not installed.
        JudgeError: no cluster answers, or no machine has the required layers.
    """

    def __init__(
        self,
        address: str = "auto",
        actors: int = 1,
        slots: int = 2,
        require: Sequence[str] = ("limits", "seccomp", "landlock"),
    ) -> None:
        # Ray sends usage statistics over the network by default.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        require_extra("ray", "judging on several machines", "ray")
        import ray
        import ray.exceptions

        self._ray = ray
        self.slots = actors * slots
        self._own = not ray.is_initialized()
        # Ray takes SIGTERM for itself, and `ray.shutdown()` does not give it back.
        self._terminate = signal.getsignal(signal.SIGTERM)
        if self._own:
            _check_reachable(address)
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
        """Number of threads that may call `judge`."""
        return self.slots

    def describe(self) -> str:
        """Return one line: the number of judges and their isolation."""
        return f"{len(self._actors)} judges, {' and '.join(sorted(set(self.levels)))}"

    def judge(
        self, problem: Problem, source: str, seed: int | None = None, visible_only: bool = False
    ) -> Verdict:
        """Return the verdict on `source`, from whichever machine is free.

        Raises:
            JudgesAwayError: no machine is available.
        """
        digest, archive = self._archive(problem)
        while True:
            index = self._take()
            try:
                call = self._actors[index].judge.remote(digest, archive, source, seed, visible_only)
                return Verdict.from_dict(self._ray.get(call, timeout=RUN_SECONDS))
            except (
                self._ray.exceptions.RayActorError,
                self._ray.exceptions.GetTimeoutError,
                self._ray.exceptions.ObjectLostError,
            ) as error:
                LOG.warning("judge %d is unavailable: %s", index, type(error).__name__)
                self._mark_away(index)
            except self._ray.exceptions.RayTaskError as error:
                raise error.cause from error
            finally:
                with self._changed:
                    self._busy[index] -= 1
                    self._changed.notify()

    def _take(self) -> int:
        """Take a slot of the least busy available actor and return the actor's index."""

        def free() -> list[int]:
            return [
                index
                for index, busy in enumerate(self._busy)
                if busy < self._slots_each and index not in self._away
            ]

        with self._changed:
            if not self._changed.wait_for(free, AWAY_SECONDS):
                raise JudgesAwayError(
                    f"no judge is available: {len(self._away)} of {len(self._actors)} do not answer"
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
            if self._terminate and threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, self._terminate)

    def _archive(self, problem: Problem) -> tuple[str, Any]:
        """Return the digest of a problem's zip, and a reference to it in Ray's object store."""
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
                f"the cluster at {address!r} has too few cores for {len(calls)} judges "
                f"of {self._slots_each} runs each"
            ) from error
        except self._ray.exceptions.RayTaskError as error:
            self.close()
            raise JudgeError(str(error.cause).splitlines()[0]) from error

    def _mark_away(self, index: int) -> None:
        """Take an actor out of use until it answers again, on its machine or another."""
        with self._changed:
            if index in self._away:
                return  # another of its slots has noticed
            self._away.add(index)
        threading.Thread(target=self._reconnect, args=(index,), daemon=True).start()

    def _reconnect(self, index: int) -> None:
        while not self._closed.is_set():
            try:
                self._ray.get(self._actors[index].start.remote(), timeout=AWAY_SECONDS)
                break
            except Exception:  # any error means that it is not back
                self._closed.wait(0.5)
        with self._changed:
            self._away.discard(index)
            self._changed.notify_all()


def _check_reachable(address: str) -> None:
    """Check that `host:port` or `ray://host:port` accepts connections; Ray retries for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), KNOCK_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise JudgeError(f"no Ray cluster at {address!r}: {error}") from error
