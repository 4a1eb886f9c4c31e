"""The queue of training jobs: add, start the next, stop, resume, clone, remove.

A job is a run that a process of its own works on, in its own session, with its output in log.txt.
Its folder is the only record: a run is queued if its state.json says so, and its place follows from
job.json. There is no server to ask and none that must live: whoever reads the queue (a command, a
page, a job that ends) may start what is next.

One process at a time does that, under the lock of the base folder. The process that is started
inherits the lock and releases it when it has recorded that it works on the run. So the run is
queued, with nobody at work on it, or is seen as started; what is killed in between is started again
by the next reader.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from etude.app.run_queue import read_order, read_queue
from etude.core.atomic_files import disk_reason
from etude.core.errors import LockHeldError, RunError
from etude.core.lock import FileLock
from etude.core.user import current_user

if TYPE_CHECKING:
    from etude.app.search import PlannedSearch
    from etude.app.tune import PlannedRun
    from etude.tuning.runs.folder import RunFolder

QUEUE_LOCK = ".queue.lock"

MOST_LAUNCHES = 3
"""Processes that may end before they have begun to work on a run, until it counts as failed."""

_children: list[subprocess.Popen[bytes]] = []
"""Jobs that this process started, to be collected when they end."""


@dataclass(frozen=True)
class StopRequested:
    """What became of a request to stop."""

    folder: RunFolder
    from_queue: bool
    """Whether it had not begun: it was taken from the queue."""


def add_job(
    plan: PlannedRun, base: Path = Path("runs"), *, ignore_memory: bool = False
) -> RunFolder:
    """Put a new run at the end of the queue; the caller may `advance` it then.

    Args:
        plan: of a new run, from `plan_run` or `plan_clone`.
        base: folder that runs are kept in.
        ignore_memory: start even if the memory estimate says that the run cannot fit.

    Raises:
        RunError: the folder cannot be made; there is none then.
        DataError: standard input, where that is the data, cannot be stored.
    """
    from etude.tuning.runs.folder import RunFolder
    from etude.tuning.settle import settled, with_runs_found
    from etude.tuning.tasks.detect import resolved

    base = base.absolute()
    recipe = with_runs_found(plan.recipe, base)

    def fill(folder: RunFolder) -> None:
        # Of standard input the task is known once it is stored.
        decided, _ = resolved(settled(recipe, folder.path))
        folder.write_text("recipe.yaml", decided.to_yaml())
        folder.write_json("job.json", _order(ignore_memory=ignore_memory))

    return RunFolder.create(recipe.name, base, queued=fill)


def add_search(plan: PlannedSearch, base: Path = Path("runs")) -> RunFolder:
    """Put a new search at the end of the queue; the caller may `advance` it then.

    Args:
        plan: of a new search.
        base: folder that runs are kept in.

    Raises:
        RunError: the folder cannot be made; there is none then.
    """
    from etude.tuning.runs.folder import RunFolder
    from etude.tuning.settle import settled, with_runs_found

    base = base.absolute()
    default = with_runs_found(plan.space.default, base)

    def fill(folder: RunFolder) -> None:
        space = replace(plan.space, default=settled(default, folder.path))
        folder.write_text("recipe.yaml", space.default.to_yaml())
        folder.write_json("search.json", space.as_json())
        folder.write_json("job.json", _order())

    return RunFolder.create(f"{default.name}-search", base, queued=fill)


def resume_job(
    name: str,
    base: Path = Path("runs"),
    overrides: Sequence[str] = (),
    *,
    ignore_memory: bool = False,
    search: Mapping[str, Any] | None = None,
) -> RunFolder:
    """Put a stopped, failed or killed run back into the queue, to go on from its last checkpoint.

    Args:
        name: `latest`, a name, or a path.
        base: folder that runs are kept in.
        overrides: how long it is to last, as `plan_resumption` takes it; a finished run may go on.
        ignore_memory: start even if the memory estimate says that the run cannot fit.
        search: of a search, which goes on with what is left: settings that may change, as
            `plan_search_resumption` takes them.

    Raises:
        RunError: there is no such run, or a process is at work on it.
        RecipeError: there is nothing to resume, or another key is to change.
    """
    from etude.app.search import plan_search_resumption
    from etude.app.tune import plan_resumption
    from etude.tuning.runs.folder import find_run

    if find_run(name, base).is_search:
        folder = plan_search_resumption(name, base, settings=dict(search or {})).resume
    else:
        folder = plan_resumption(name, base, overrides).resume
    assert folder is not None, "a run to resume has a folder"
    with folder:
        if folder.state == "queued":
            return folder
        order = _order(overrides=overrides, ignore_memory=ignore_memory)
        order |= {"before": folder.state_record(), "search": dict(search or {})}
        folder.write_json("job.json", order)
        where = "with the trials that are left" if folder.is_search else "from its last checkpoint"
        folder.set_state("queued", f"to go on {where}")
    return folder


def plan_clone(name: str, base: Path = Path("runs"), overrides: Sequence[str] = ()) -> PlannedRun:
    """Return a new run by the recipe of another, changed.

    Args:
        name: of the other run: `latest`, a name, or a path.
        base: folder that runs are kept in.
        overrides: `dotted.key=value`, values read as YAML.

    Raises:
        RunError: there is no such run.
        RecipeError: the changed recipe cannot be run.
    """
    from etude.app.tune import PlannedRun
    from etude.tuning.config.recipe import Recipe, apply_override
    from etude.tuning.runs.folder import find_run
    from etude.tuning.tasks.detect import resolved

    folder = find_run(name, base)
    fields = Recipe.read_run(folder.recipe).model_dump(mode="json")
    for override in overrides:
        apply_override(fields, override)
    recipe, notes = Recipe.parse(fields, str(folder.recipe)), list[str]()
    if any(one.partition("=")[0].strip().startswith(("data", "task")) for one in overrides):
        # Of the same data, a run's own recipe has task and columns decided.
        recipe, notes = resolved(recipe)
    return PlannedRun(recipe, notes=tuple(notes))


def advance(base: Path = Path("runs")) -> RunFolder | None:
    """Start the next job, if one waits and may run.

    It does not wait: where another process is starting a job, that one goes on with the queue.

    Returns:
        The run that a process was started for.

    Raises:
        RunError: its log cannot be written, or no process can be started.
    """
    _children[:] = [child for child in _children if child.poll() is None]
    base = base.absolute()
    if not base.is_dir() or not read_queue(base).waiting:
        return None
    lock = FileLock(base / QUEUE_LOCK)
    try:
        lock.acquire()
    except LockHeldError:
        return None
    except OSError as error:
        raise RunError(f"cannot lock {base}: {disk_reason(error)}") from None
    try:
        # Read again: what waited a moment ago may have been started.
        queue = read_queue(base)
        if len(queue.active) >= queue.at_once:
            return None
        for folder in queue.waiting:
            if _may_launch(folder):
                _children.append(_launch(folder, lock.descriptor))
                return folder
        return None
    finally:
        lock.release()


def _may_launch(folder: RunFolder) -> bool:
    """Count a launch; a run whose processes end before they begin fails instead."""
    order = read_order(folder)
    launches = int(order.get("launches") or 0)
    if launches < MOST_LAUNCHES:
        folder.write_json("job.json", {**order, "launches": launches + 1})
        return True
    with folder:
        folder.set_state(
            "failed", f"its process ended {launches} times before it began; see its log"
        )
    return False


def _launch(folder: RunFolder, lock: int) -> subprocess.Popen[bytes]:
    """Start the process of a job; it inherits the queue's lock."""
    environment = {**os.environ, "NO_COLOR": "1", "COLUMNS": "100", "PYTHONUNBUFFERED": "1"}
    try:
        with folder.log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "etude.app.job_process", str(folder.path), str(lock)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                pass_fds=[lock],
                # Neither a terminal that closes nor the end of a server reaches it.
                start_new_session=True,
            )
    except OSError as error:
        raise RunError(f"cannot start a process for {folder.path}: {disk_reason(error)}") from None


def stop_job(name: str, base: Path = Path("runs"), *, now: bool = False) -> StopRequested:
    """Ask a run to stop: it saves a checkpoint at the next safe point. A queued one is taken out.

    Args:
        name: `latest`, a name, or a path.
        base: folder that runs are kept in.
        now: of a run that has been asked already: end it without saving.

    Raises:
        RunError: there is no such run, nothing is at work on it, or it runs on another machine.
    """
    import signal

    from etude.tuning.runs.folder import find_run
    from etude.tuning.runs.process import host, send
    from etude.tuning.runs.states import ALIVE

    folder = find_run(name, base)
    if folder.state == "queued":
        _take_from_queue(folder)
        return StopRequested(folder, from_queue=True)
    if folder.state not in ALIVE:
        raise RunError(f"{folder.path} is not running: it is {folder.state}")
    if folder.state == "stopping" and not now:
        return StopRequested(folder, from_queue=False)
    record = folder.state_record()
    if (elsewhere := record.get("host", host())) != host():
        raise RunError(f"{folder.path} runs on {elsewhere}; stop it there")
    folder.ask_to_stop()
    if not send(record, signal.SIGTERM):
        folder.clear_stop()
        raise RunError(f"{folder.path} is not running: its process has just ended")
    return StopRequested(folder, from_queue=False)


def _take_from_queue(folder: RunFolder) -> None:
    """Let a queued run be what it was before it was queued."""
    with folder:
        if folder.state != "queued":
            raise RunError(f"{folder.path} has just begun; stop it")
        before: Any = read_order(folder).get("before")
        if before:
            folder.write_json("state.json", before)
        else:
            folder.set_state("stopped", "taken from the queue before it began")


def remove_job(name: str, base: Path = Path("runs")) -> int:
    """Delete a run that no process is at work on, queued or not; return the bytes freed.

    Raises:
        RunError: there is no such run, it is running, merged or exported, or it cannot be deleted.
    """
    from etude.app.conversing import WORK, end_conversing
    from etude.app.runs import size_of
    from etude.app.work import work_of_run
    from etude.tuning.runs.folder import find_run, remove_run

    folder = find_run(name, base)
    for work in work_of_run(folder).states().values():
        if work.condition == "running" and work.name != WORK:
            raise RunError(f"{folder.path} is being worked on ({work.step}); stop that first")
    end_conversing(folder)
    size = size_of(folder)
    remove_run(folder)
    return size


def log_tail(folder: RunFolder, limit: int = 64_000) -> str:
    """Return the end of a run's log, whole lines of at most `limit` bytes; empty without a log."""
    try:
        with folder.log.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(0, size - limit))
            text = log.read(limit)
    except OSError:
        return ""
    if size > limit:
        text = text.partition(b"\n")[2]
    return text.decode("utf-8", "replace")


def _order(*, overrides: Sequence[str] = (), ignore_memory: bool = False) -> dict[str, Any]:
    """Return the content of job.json."""
    return {
        "queued": datetime.now(UTC).isoformat(timespec="seconds"),
        "number": time.time_ns(),
        "owner": current_user(),
        "overrides": list(overrides),
        "ignore_memory": ignore_memory,
        "launches": 0,
        "before": None,
        "search": {},
    }
