"""The process that trains trials: one after another, so that libraries are loaded once.

A trial that takes its process down (memory, a fault in native code) is one failed trial; the next
has a new process. The process has a session of its own: Ctrl-C reaches the search alone, which asks
it to stop at a safe point. It ends with the search, however that ends.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Literal

from etude.core.errors import (
    AdapterError,
    DivergedError,
    EtudeError,
    InsufficientMemoryError,
    RecipeError,
    innermost_reason,
)

POLL_SECONDS = 0.1
SAYS_FULL = ("the disk is full", "no space left on device", "free some space")
"""Words of errors that a full disk causes, whatever their type."""


@dataclass(frozen=True)
class Job:
    """A trial to train."""

    recipe: dict[str, Any]
    """Plain data."""
    base: str
    """Folder in which its run is made."""
    run: str
    """Its run, to go on with; empty: a new one."""
    shares: tuple[float, ...]
    """Shares of the training after which it is evaluated."""
    until: float
    """Share after which it pauses; 1: it is trained to its end."""
    before: dict[str, Any] | None = None
    """What the base measures, before.json of another trial; None: it is measured."""


@dataclass(frozen=True)
class Outcome:
    """What became of a job."""

    state: Literal["paused", "finished", "stopped", "failed", "diverged", "skipped", "no_memory"]
    reason: str = ""
    disk_full: bool = False
    seconds: float = 0.0


Events = Callable[[str, Mapping[str, Any]], None]
"""Called with the name of an event (`step`, `stage`, `evaluation`) and its figures."""


class Worker:
    """Trains jobs in a process of its own, which is started when it is needed.

    Args:
        log: file that receives what the process prints, and tracebacks.
    """

    def __init__(self, log: Path) -> None:
        self._log = log
        self._process: Any = None
        self._connection: Connection | None = None

    def run(self, job: Job, events: Events, stopping: Callable[[], bool]) -> Outcome:
        """Train a job and wait for its outcome.

        Args:
            job: the trial.
            events: told of progress.
            stopping: whether the search is to stop; the job is then asked to, once.
        """
        began = time.monotonic()
        outcome = self._run(job, events, stopping)
        return replace(outcome, seconds=round(time.monotonic() - began, 3))

    def _run(self, job: Job, events: Events, stopping: Callable[[], bool]) -> Outcome:
        connection = self._started()
        connection.send(asdict(job))
        asked = False
        while True:
            if stopping() and not asked:
                asked = True
                self._signal(signal.SIGINT)
            try:
                if not connection.poll(POLL_SECONDS):
                    continue
                name, figures = connection.recv()
            except (EOFError, OSError):
                return self._lost(asked)
            if name == "end":
                return Outcome(**figures)
            events(name, figures)

    def close(self) -> None:
        """End the process, if there is one."""
        if self._connection is not None:
            self._connection.close()
        if self._process is not None:
            self._process.join(timeout=5)
            if self._process.is_alive():
                self._process.kill()
                self._process.join()
        self._process = self._connection = None

    def kill(self) -> None:
        """End the process at once; what its run has saved stays."""
        if self._process is not None:
            self._process.kill()
        self.close()

    def _started(self) -> Connection:
        if self._connection is not None and self._process.is_alive():
            return self._connection
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs, str(self._log)), name="trials")
        process.start()
        theirs.close()
        self._process, self._connection = process, ours
        return ours

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.kill(self._process.pid, number)

    def _lost(self, asked: bool) -> Outcome:
        """Return the outcome of a process that ended without one."""
        self._process.join()
        code: int = self._process.exitcode or 0
        self.close()
        if asked:
            return Outcome("stopped", "its process was stopped")
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return Outcome(
            "failed", f"its process ended ({how}): a fault in native code, or want of memory"
        )


def _work(connection: Connection, log: str) -> None:
    """Train what the connection asks for, until it is closed."""
    with suppress(OSError):
        os.setsid()
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    try:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError:  # a full disk: what is printed is the least of it
        output = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(output, stream)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    while True:
        try:
            job = Job(**connection.recv())
        except (EOFError, OSError):
            return
        except KeyboardInterrupt:
            continue
        try:
            outcome = _train(job, connection)
        except KeyboardInterrupt:
            outcome = Outcome("stopped", "stopped before its first step")
        try:
            connection.send(("end", asdict(outcome)))
        except OSError:
            return


def _end_with(sentinel: int) -> None:
    """End this process when its parent has ended, however it did."""
    wait([sentinel])
    os._exit(1)


def _train(job: Job, connection: Connection) -> Outcome:
    from etude.core.machine import release_freed_memory, reset_peak
    from etude.tuning.config.recipe import Recipe
    from etude.tuning.pipeline import tune
    from etude.tuning.runs.folder import RunFolder
    from etude.tuning.search.relay import RelayCallback, RelayProgress
    from etude.tuning.training.measurement import Measurement
    from etude.tuning.training.rungs import Rungs

    relay = _Relay(connection)
    release_freed_memory()
    reset_peak()
    resume = RunFolder.open(Path(job.base) / job.run) if job.run else None
    try:
        run = tune(
            Recipe.parse(job.recipe),
            base=job.base,
            resume=resume,
            callbacks=[RelayCallback(relay)],
            progress=RelayProgress(relay),
            rungs=Rungs(job.shares, job.until),
            before=Measurement.from_json(job.before) if job.before else None,
        )
    except InsufficientMemoryError as error:
        return Outcome("no_memory", str(error))
    except DivergedError as error:
        return Outcome("diverged", str(error))
    except (RecipeError, AdapterError) as error:
        return Outcome("skipped", str(error))
    except EtudeError as error:
        return Outcome("failed", str(error), disk_full=_is_full(error))
    except Exception as error:
        traceback.print_exc()
        sys.stderr.flush()
        reason = f"{type(error).__name__}: {innermost_reason(error)}"
        return Outcome("failed", reason, disk_full=_is_full(error))
    if run.state == "finished":
        return Outcome("finished")
    detail = str(RunFolder.open(run.folder).state_record().get("detail") or "")
    return Outcome("paused" if detail.startswith("paused") else "stopped", detail)


def _is_full(error: BaseException) -> bool:
    seen: BaseException | None = error
    while seen is not None:
        if any(words in str(seen).lower() for words in SAYS_FULL):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


class _Relay:
    """Sends events to the search; one that has ended is noticed elsewhere."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        # The answer to a stop comes from another thread.
        self._lock = threading.Lock()

    def __call__(self, name: str, figures: Mapping[str, Any]) -> None:
        with self._lock, suppress(OSError):
            self._connection.send((name, dict(figures)))
