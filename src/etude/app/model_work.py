"""Work on models that takes minutes, each in a process of its own: pulling and quantising.

The process outlives the server that started it. What it does is in a file, `.work/NAME.json` in the
folder of models, which it replaces as it goes; a page, or a server that was started anew, reads it.

    python -m etude.app.model_work pull NAME
    python -m etude.app.model_work quantize NAME nf4
"""

from __future__ import annotations

import hashlib
import json
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast

from etude.core.atomic_files import disk_reason, replace_text, to_json
from etude.core.errors import EtudeError, LockHeldError, ModelError
from etude.core.lock import FileLock
from etude.core.paths import models_folder

Action = Literal["pull", "quantize"]
KINDS = ("nf4", "fp4", "int8")
"""Formats that a model can be quantised to here."""
_WRITE_SECONDS = 0.5
"""Shortest time between two writes of the state."""
_BEGIN_SECONDS = 20.0
"""Time in which a process that was started must have written its own state."""


@dataclass(frozen=True)
class WorkState:
    """What a process does to a model, or did last."""

    action: Action
    name: str
    """Of the model, as recipes have it."""
    kind: str
    """That it is quantised to; empty for a pull."""
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


def output_of(name: str, kind: str) -> Path:
    """Return the folder of a model that was quantised here."""
    stem = re.sub(r"[^\w.-]+", "-", name.removeprefix(str(models_folder())).strip("/"))
    return models_folder() / f"{stem}-{kind}"


def work_states() -> dict[str, WorkState]:
    """Return the last work on each model, by its name; damaged files are left out."""
    found: dict[str, WorkState] = {}
    for file in sorted(_work_folder().glob("*.json")):
        with suppress(OSError, ValueError, TypeError):
            state = WorkState(**json.loads(file.read_text("utf-8")))
            found[state.name] = state
    return found


def work_stamp() -> str:
    """Return a text that changes with the states, and with the folder of models."""
    parts: list[tuple[str, int]] = []
    for path in (models_folder(), *sorted(_work_folder().glob("*.json"))):
        with suppress(OSError):
            parts.append((path.name, path.stat().st_mtime_ns))
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


_children: list[subprocess.Popen[bytes]] = []
"""Processes that this one started, to be collected when they end."""


def begin_work(action: Action, name: str, kind: str = "") -> None:
    """Start a process that pulls or quantises a model.

    Raises:
        ModelError: one is at work on it, or no process can be started.
    """
    _children[:] = [child for child in _children if child.poll() is None]
    state = work_states().get(name)
    if state is not None and state.condition == "running":
        raise ModelError(f"{name} is being worked on: {state.step}")
    try:
        _work_folder().mkdir(parents=True, exist_ok=True)
        _write(WorkState(action, name, kind, time.time()))
        with _file(name, "log").open("wb") as log:
            _children.append(
                subprocess.Popen(
                    [sys.executable, "-P", "-m", __name__, action, name, kind],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # it goes on when the server ends
                )
            )
    except OSError as error:
        raise ModelError(f"cannot begin: {disk_reason(error)}") from error


def stop_work(name: str) -> None:
    """End the process that works on a model; nothing half made stays."""
    from etude.tuning.runs.process import send

    state = work_states().get(name)
    if state is not None and state.process is not None and state.ended is None:
        send(state.process, signal.SIGTERM)


def forget_work(name: str) -> None:
    """Remove what is known of earlier work on a model."""
    for suffix in ("json", "log"):
        _file(name, suffix).unlink(missing_ok=True)


def _work_folder() -> Path:
    return models_folder() / ".work"


def _file(name: str, suffix: str) -> Path:
    # A name may be a hub id, or a path: no file's name is made of it.
    return _work_folder() / f"{hashlib.sha256(name.encode()).hexdigest()[:24]}.{suffix}"


def _write(state: WorkState) -> None:
    replace_text(_file(state.name, "json"), to_json(asdict(state)))


# -- in the process ------------------------------------------------------------------------------


class _Reporter:
    """A progress whose state is a file."""

    def __init__(self, state: WorkState) -> None:
        self._fields = asdict(state)
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
        self._fields |= {"ended": time.time(), "problem": problem}
        self.write()

    def write(self) -> None:
        self._written = time.monotonic()
        _write(WorkState(**self._fields))


def _stop(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)


def _run(action: Action, name: str, kind: str) -> None:
    from etude.tuning.runs.process import signature

    _work_folder().mkdir(parents=True, exist_ok=True)
    lock = FileLock(_file(name, "lock"))
    try:
        lock.acquire()
    except LockHeldError:
        return  # the other one's state is shown
    with lock:
        signal.signal(signal.SIGTERM, _stop)
        reporter = _Reporter(WorkState(action, name, kind, time.time(), signature()))
        try:
            if action == "pull":
                from etude.tuning.models.pull import pull

                pull(name, reporter)
            else:
                _quantize(name, kind, reporter)
            reporter.end()
        except EtudeError as error:
            reporter.end(str(error))
        except SystemExit:
            reporter.end("it was stopped; nothing half made was kept")
            raise
        except Exception as error:
            reporter.end(f"{type(error).__name__}: {error}")
            raise


def _quantize(name: str, kind: str, progress: _Reporter) -> None:
    from etude.tuning.config.sections.model import ModelSpec
    from etude.tuning.config.sections.quant import QuantSpec
    from etude.tuning.export.bitsandbytes import quantize_model

    quantize_model(
        ModelSpec.model_validate({"id": name}),
        QuantSpec.model_validate({"kind": kind}),
        output_of(name, kind),
        progress=progress,
    )


if __name__ == "__main__":
    _run(cast("Action", sys.argv[1]), sys.argv[2], sys.argv[3])
