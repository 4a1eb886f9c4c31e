"""States of a run, derived from its files.

    queued -> starting -> running -> finished
                |  ^         |-----> stopped, failed, diverged
                v  |         |-----> stopping -> stopped
              stopped        '-----> killed

Written to state.json are `queued`, `starting`, `running`, `finished`, `stopped`, `failed` and
`diverged`. Two are seen by a reader only: `killed`, a run whose state.json says `starting` or
`running` while the process that wrote it no longer holds the folder's lock; and `stopping`, one
that still does, and has been asked to stop.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal, get_args

from etude.tuning.runs.process import host, signature, started

RunState = Literal[
    "queued",
    "starting",
    "running",
    "stopping",
    "finished",
    "stopped",
    "failed",
    "diverged",
    "killed",
]

AT_WORK: tuple[RunState, ...] = ("starting", "running")
"""Recorded states that hold only while the process that recorded them is alive."""

ALIVE: tuple[RunState, ...] = (*AT_WORK, "stopping")
"""States of a run that a process is at work on."""

RESUMABLE: tuple[RunState, ...] = ("stopped", "failed", "diverged", "killed")
"""States that a run can go on from without a change of its recipe."""


def state_record(state: RunState, detail: str, began: str | None = None) -> dict[str, Any]:
    """Return the content of state.json.

    Args:
        state: to record.
        detail: a line for the user.
        began: when the run began, as recorded before; None: now.
    """
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {
        "state": state,
        "detail": detail,
        **signature(),
        "began": began or now,
        "updated": now,
    }


def derived_state(record: dict[str, Any], *, locked: bool, asked_to_stop: bool) -> RunState:
    """Return the state of a run.

    Args:
        record: state.json.
        locked: whether some process holds the folder's lock. The kernel releases it with its
            process, however that ends.
        asked_to_stop: whether the process at work has been asked to stop.
    """
    said: Any = record.get("state")
    if said not in get_args(RunState):
        return "failed"
    if said not in AT_WORK:
        return said
    if not locked or not _holds_lock(record):
        return "killed"
    return "stopping" if asked_to_stop else said


def _holds_lock(record: dict[str, Any]) -> bool:
    """Whether the process that wrote `record` is the one that holds the lock.

    Another may hold it: one that evaluates a run that was killed, or that is about to resume it.
    On another machine, or in another container, process ids say nothing, and the lock decides.
    """
    pid, when = record.get("pid"), record.get("started")
    if when is None or not isinstance(pid, int) or record.get("host") != host():
        return True
    return started(pid) == when
