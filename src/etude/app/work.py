"""Work that takes minutes, each in a process of its own that outlives the server.

What a process does is in a file, which it replaces as it goes; a page, or a server that was started
anew, reads it. A folder holds the files of all that belongs together: the models of this machine,
or a run. In it, work has a name, and one process at a time does what has this name.

    python -m etude.app.work FOLDER ACTION NAME DETAIL
"""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from etude.core.atomic_files import disk_reason, replace_text, to_json
from etude.core.errors import EtudeError, LockHeldError
from etude.core.lock import FileLock

if TYPE_CHECKING:
    from etude.tuning.runs.folder import RunFolder

Action = Literal["pull", "quantize", "converse", "merge", "export"]

_ACTIONS: dict[Action, str] = {
    "pull": "etude.app.model_work:pull",
    "quantize": "etude.app.model_work:quantize",
    "converse": "etude.app.converse_process:converse",
    "merge": "etude.app.run_exports:merge",
    "export": "etude.app.run_exports:export",
}
"""What the process calls, with a `WorkRequest` and a `Reporter`."""

_WRITE_SECONDS = 0.5
"""Shortest time between two writes of the state."""
_BEGIN_SECONDS = 20.0
"""Time in which a process that was started must have written its own state."""


class WorkError(EtudeError):
    """Work cannot be begun."""


@dataclass(frozen=True)
class WorkRequest:
    """What a process is to do."""

    folder: Path
    """Where the files of the work are."""
    name: str
    kind: str


@dataclass(frozen=True)
class WorkState:
    """What a process does, or did last."""

    action: Action
    name: str
    """Of the work in its folder: of a model, as recipes have it."""
    kind: str
    """What exactly: the format that a model is quantised to. May be empty."""
    began: float
    """In seconds since 1970."""
    process: dict[str, Any] | None = None
    """Identity of the process; None before it has written this itself."""
    step: str = "starting"
    done: int = 0
    total: int | None = None
    unit: str = ""
    """`B` for bytes, or a plural noun."""
    ended: float | None = None
    problem: str = ""
    """Why it failed; empty if it did not."""

    @property
    def condition(self) -> Literal["running", "done", "failed", "interrupted"]:
        """Say how it is."""
        from etude.tuning.runs.process import is_process

        if self.ended is not None:
            return "failed" if self.problem else "done"
        if self.process is None:
            return "running" if abs(time.time() - self.began) < _BEGIN_SECONDS else "interrupted"
        return "running" if is_process(self.process) else "interrupted"


_children: list[subprocess.Popen[bytes]] = []
"""Processes that this one started, to be collected when they end."""


class WorkFolder:
    """The work of one folder.

    Args:
        folder: for its files; made when work begins.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def states(self) -> dict[str, WorkState]:
        """Return the last work of each name; damaged files are left out."""
        found: dict[str, WorkState] = {}
        for file in sorted(self._folder.glob("*.json")):
            with suppress(OSError, ValueError, TypeError):
                state = WorkState(**json.loads(file.read_text("utf-8")))
                found[state.name] = state
        return found

    def stamp(self, *others: Path) -> str:
        """Return a text that changes with the states, and with other files or folders."""
        parts: list[tuple[str, int]] = []
        for path in (*others, *sorted(self._folder.glob("*.json"))):
            with suppress(OSError):
                parts.append((path.name, path.stat().st_mtime_ns))
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]

    def begin(self, action: Action, name: str, kind: str = "") -> None:
        """Start a process.

        Raises:
            WorkError: one is at work under this name, or no process can be started.
        """
        _children[:] = [child for child in _children if child.poll() is None]
        state = self.states().get(name)
        if state is not None and state.condition == "running":
            raise WorkError(f"{name} is being worked on: {state.step}")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self.write(WorkState(action, name, kind, time.time()))
            with self._file(name, "log").open("wb") as log:
                words = [str(self._folder.absolute()), action, name, kind]
                _children.append(
                    subprocess.Popen(
                        [sys.executable, "-P", "-m", __name__, *words],
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        start_new_session=True,  # it goes on when the server ends
                    )
                )
        except OSError as error:
            raise WorkError(f"cannot begin: {disk_reason(error)}") from error

    def stop(self, name: str) -> None:
        """Ask the process to end; nothing half made stays."""
        from etude.tuning.runs.process import send

        state = self.states().get(name)
        if state is not None and state.process is not None and state.ended is None:
            send(state.process, signal.SIGTERM)

    def forget(self, name: str) -> None:
        """Remove what is known of earlier work."""
        for suffix in ("json", "log"):
            self._file(name, suffix).unlink(missing_ok=True)

    def write(self, state: WorkState) -> None:
        """Replace the state of what has its name."""
        replace_text(self._file(state.name, "json"), to_json(asdict(state)))

    def lock(self, name: str) -> FileLock:
        """Return the lock of whoever works under a name."""
        return FileLock(self._file(name, "lock"))

    def _file(self, name: str, suffix: str) -> Path:
        # A name may be a hub id, or a path: no file's name is made of it.
        return self._folder / f"{hashlib.sha256(name.encode()).hexdigest()[:24]}.{suffix}"


def work_of_run(run: RunFolder) -> WorkFolder:
    """Return the work on a run: conversing, merging and exporting."""
    return WorkFolder(run.path / "work")


# -- in the process ------------------------------------------------------------------------------


class Reporter:
    """A progress whose state is a file."""

    def __init__(self, folder: WorkFolder, state: WorkState) -> None:
        self._folder, self._fields = folder, asdict(state)
        self._written = 0.0
        self.write()

    def start(self, label: str, total: int | None, unit: str = "") -> None:
        """Begin a step."""
        self._fields |= {"step": label, "done": 0, "total": total, "unit": unit}
        self.write()

    def advance(self, n: int = 1) -> None:
        """Go on."""
        self._fields["done"] += n
        if time.monotonic() - self._written >= _WRITE_SECONDS:
            self.write()

    def finish(self) -> None:
        """End the step."""
        self.write()

    def end(self, problem: str = "") -> None:
        """Say that the work has ended, and why if it failed."""
        self._fields |= {"ended": time.time(), "problem": problem}
        self.write()

    def go_on(self) -> None:
        """Take back that it has ended."""
        self._fields |= {"ended": None, "problem": ""}
        self.write()

    def write(self) -> None:
        """Write the state."""
        self._written = time.monotonic()
        self._folder.write(WorkState(**self._fields))


def _stop(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)


def main(place: str, action: Action, name: str, kind: str) -> None:
    """Do the work."""
    from etude.tuning.runs.process import signature

    folder = WorkFolder(Path(place))
    lock = folder.lock(name)
    try:
        lock.acquire()
    except LockHeldError:
        return  # the other one's state is shown
    with lock:
        signal.signal(signal.SIGTERM, _stop)
        reporter = Reporter(folder, WorkState(action, name, kind, time.time(), signature()))
        try:
            module, _, function = _ACTIONS[action].partition(":")
            work: Callable[[WorkRequest, Reporter], None] = getattr(import_module(module), function)
            work(WorkRequest(Path(place), name, kind), reporter)
            reporter.end()
        except EtudeError as error:
            reporter.end(str(error))
        except SystemExit:
            reporter.end("it was stopped; nothing half made was kept")
            raise
        except Exception as error:
            reporter.end(f"{type(error).__name__}: {error}")
            raise


if __name__ == "__main__":
    main(sys.argv[1], cast("Action", sys.argv[2]), sys.argv[3], sys.argv[4])
