"""Judges as processes: those that run on this machine, and one that is started when it is needed.

A judge is `etude practice judge`. It writes a file in `ETUDE_HOME/judges` by which others find it.
A server that must not load PyTorch starts one with `--idle`, so that it ends when nothing was
submitted for a while. If it is killed, what it had claimed goes back to its place in the queue at
once, and another one is started.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from etude.core.atomic_files import replace_text
from etude.core.paths import home
from etude.practice.queue import Queue
from etude.practice.worker import workers_of
from etude.store.engine import database_address

LOG = logging.getLogger(__name__)
IDLE_SECONDS = 600.0
MOST_DEATHS = 3
"""Judges that may be killed one after the other before none is started any more."""
_LEAVE_SECONDS = 3.0


@dataclass(frozen=True)
class RunningJudge:
    """A judge that runs on this machine."""

    pid: int
    started: float
    """When its process began, in seconds since 1970: process ids are used again."""
    slots: int
    """Submissions that it judges at the same time."""
    isolation: str
    database: str
    """Digest of the address of its database."""


def folder() -> Path:
    """Return the folder in which judges make themselves known."""
    return home() / "judges"


@contextmanager
def announced(slots: int, isolation: str) -> Generator[None]:
    """Let others find the judge of this process while the context is open."""
    pid = os.getpid()
    began = psutil.Process(pid).create_time()
    own = RunningJudge(pid, began, slots, isolation, _database())
    file = folder() / f"{pid}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    replace_text(file, json.dumps(asdict(own)))
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def running_judges() -> list[RunningJudge]:
    """Return the judges of this database that run on this machine and are ready."""
    found: list[RunningJudge] = []
    for file in folder().glob("*.json"):
        with suppress(OSError, ValueError, TypeError, psutil.Error):
            judge = RunningJudge(**json.loads(file.read_text("utf-8")))
            alive = abs(psutil.Process(judge.pid).create_time() - judge.started) < 2
            if alive and judge.database == _database():
                found.append(judge)
    return found


def _database() -> str:
    return hashlib.sha256(database_address().encode()).hexdigest()[:16]


class JudgeProcess:
    """Starts a judge when somebody needs one, and another one if it is killed.

    Args:
        engine: the database of the queue, the same that the judge opens from the environment.
        idle_seconds: after which a judge with nothing to do ends.
        slots: submissions judged at the same time.
        command: what starts a judge; `etude practice judge` of this Python by default.
    """

    def __init__(
        self,
        engine: Engine,
        idle_seconds: float = IDLE_SECONDS,
        slots: int = 2,
        command: Sequence[str] | None = None,
    ) -> None:
        self._queue = Queue(engine)
        options = ["--idle", f"{idle_seconds:g}", "--workers", str(slots)]
        self._command = list(command or [sys.executable, "-m", "etude", "practice", "judge"])
        self._command += options
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._closed = False
        self._deaths = 0
        self.failure = ""
        """Why the last judge could not start; empty if it could."""

    @property
    def pid(self) -> int | None:
        """The process of the judge; None if there is none."""
        with self._lock:
            return None if self._process is None else self._process.pid

    def want(self, *, again: bool = True) -> None:
        """Make sure that a judge runs or starts, now that work is there or to be expected.

        Args:
            again: try even if the last one could not start.
        """
        with self._lock:
            if again:
                self._deaths = 0
            elif self.failure:
                return
            if self._process is None and not self._closed and not running_judges():
                self._start()

    def want_if_waiting(self) -> None:
        """Do so only if submissions wait, as they do after a server was killed."""
        if self._queue.waiting():
            self.want()

    def close(self) -> None:
        """Ask the judge to end; it finishes what it has begun."""
        with self._lock:
            self._closed = True
            process = self._process
        if process is not None:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(_LEAVE_SECONDS)

    def _start(self) -> None:
        self.failure = ""
        log = folder() / "judge.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                # Ctrl-C ends the server, which then asks the judge to finish.
                start_new_session=True,
            )
        threading.Thread(target=self._attend, args=(self._process, log), daemon=True).start()

    def _attend(self, process: subprocess.Popen[bytes], log: Path) -> None:
        """Wait until a judge ends, then see to what it left."""
        code = process.wait()
        waiting = 0
        while True:
            try:
                self._queue.give_back_all(workers_of(process.pid))
                waiting = self._queue.waiting()
                break
            except SQLAlchemyError as error:
                LOG.warning("the database does not answer: %s", error)
                time.sleep(1.0)
        (folder() / f"{process.pid}.json").unlink(missing_ok=True)
        with self._lock:
            self._process = None
            if self._closed:
                return
            self.failure = _last_words(log) if code > 0 else ""
            if code < 0:
                self._deaths += 1
                LOG.warning("the judge was killed by signal %d", -code)
                if self._deaths >= MOST_DEATHS:
                    self.failure = f"it was killed {self._deaths} times, by signal {-code}"
            # One that ended because it was idle may have missed what came at that moment.
            if waiting and not self.failure:
                self._start()


def _last_words(log: Path) -> str:
    with suppress(OSError):
        lines = log.read_text("utf-8", errors="replace").strip().splitlines()
        if lines:
            return lines[-1][-500:]
    return "it ended without a word"
