"""What a run's state means: why it is in it, since when, and what to do next."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from etude.app.run_queue import Queue
    from etude.tuning.runs.folder import RunFolder
    from etude.tuning.runs.states import RunState

SILENT_SECONDS = 60.0
"""A process that has given no sign of life for longer is mentioned; it may be asleep."""


@dataclass(frozen=True)
class Standing:
    """The state of a run, in words."""

    state: RunState
    reason: str
    """Why it is in this state; empty where the state says it all."""
    next_step: str
    """What to do, or what happens by itself."""
    place: int | None = None
    """In the queue, from 1."""
    silent_seconds: float | None = None
    """Since the last sign of life of a process at work; None without one."""


def standing_of(
    folder: RunFolder, queue: Queue | None = None, *, step: int = 0, total_steps: int | None = None
) -> Standing:
    """Return what the state of a run means.

    Args:
        folder: of the run.
        queue: of its base folder, for a place in it.
        step: the last one that was recorded.
        total_steps: as planned.
    """
    record = folder.state_record()
    state = folder.state
    detail = " ".join(str(record.get("detail") or "").split())
    if not record:
        return Standing(
            "failed",
            "its state.json is missing or damaged, so nothing is known of it",
            "look at its folder; its checkpoints may be good. Or remove it",
        )
    if state == "queued":
        return _queued(folder, queue, detail)
    if state in ("starting", "running", "stopping"):
        return _at_work(folder, state, step, total_steps)
    if folder.has_trials:
        return _of_trials(folder, state, detail)
    if state == "finished":
        return Standing(state, detail, "look at its report, try it, or train it for longer")
    if state == "stopped":
        return Standing(state, detail or "it has not begun", _how_to_go_on(folder))
    if state == "diverged":
        return Standing(state, detail, "clone it with a lower train.lr")
    if state == "failed":
        return Standing(state, detail or "its state is unknown", _after_failure(folder, detail))
    return Standing(state, _how_it_was_lost(record), _how_to_go_on(folder))


def _of_trials(folder: RunFolder, state: RunState, detail: str) -> Standing:
    """Return the standing of a search or a cross-validation that nobody is at work on."""
    if folder.is_cross_validation:
        after = f"go on with: etude tune --resume {folder.name}"
        return Standing(state, detail, "look at its page" if state == "finished" else after)
    if state == "finished":
        return Standing(state, detail, "look at its page, or tune with its best.yaml")
    if state == "killed":
        detail = _how_it_was_lost(folder.state_record())
    return Standing(
        state,
        detail,
        f"resume it with the trials that are left (etude search --resume {folder.name})",
    )


def _queued(folder: RunFolder, queue: Queue | None, detail: str) -> Standing:
    if queue is None:
        return Standing("queued", detail, "it starts by itself when its turn comes")
    names = [waiting.name for waiting in queue.waiting]
    place = names.index(folder.name) + 1 if folder.name in names else None
    busy = ", ".join(run.name for run in queue.active)
    reason = "; ".join(filter(None, [f"{busy} is at work" if busy else "", detail]))
    if place == 1 and len(queue.active) < queue.at_once:
        return Standing("queued", reason, "it starts in a moment", place)
    return Standing("queued", reason, "it starts by itself when its turn comes", place)


def _at_work(folder: RunFolder, state: RunState, step: int, total_steps: int | None) -> Standing:
    silent = _silent_seconds(folder)
    reason = {
        "starting": "the model and the data are being loaded",
        "stopping": "it was asked to stop, and saves a checkpoint at the next safe point",
    }.get(state, "")
    if state == "running" and total_steps and step >= total_steps:
        reason = "all steps are done; it is measured and saved"
    if silent is not None and silent > SILENT_SECONDS:
        reason = "; ".join(
            filter(
                None,
                [
                    reason,
                    f"no sign of life for {silent:,.0f} s: the machine was asleep or is busy, but "
                    "the process is there",
                ],
            )
        )
    following = "wait, or end it at once, which loses the steps since its last checkpoint"
    return Standing(
        state,
        reason,
        following if state == "stopping" else "wait, or stop it: it saves where it is",
        silent_seconds=silent,
    )


def _silent_seconds(folder: RunFolder) -> float | None:
    """Return the time since the last heartbeat; never below 0, whatever the clock did."""
    try:
        beat = folder.heartbeat.stat().st_mtime
    except OSError:
        return None
    return max(0.0, time.time() - beat)


def _how_it_was_lost(record: dict[str, Any]) -> str:
    from etude.tuning.runs.process import boot, host

    began_in, _, _ = str(record.get("started") or "").partition(":")
    if record.get("host") == host() and began_in and boot() and began_in != boot():
        return "the machine was started anew while it ran"
    return "its process was killed, by someone or for want of memory"


def _after_failure(folder: RunFolder, detail: str) -> str:
    if "free some space" in detail.lower():
        return f"free some space; then {_how_to_go_on(folder)}"
    if saved_step(folder):
        return f"put right what it names; then {_how_to_go_on(folder)}"
    return "put right what it names, then resume it; or clone it with changes"


def _how_to_go_on(folder: RunFolder) -> str:
    step = saved_step(folder)
    return f"resume it: it goes on from step {step:,}" if step else "resume it: it begins anew"


def saved_step(folder: RunFolder) -> int | None:
    """Return the step of the newest checkpoint; None without one."""
    names = (re.fullmatch(r"step-(\d+)\.pt", file.name) for file in folder.checkpoints.glob("*.pt"))
    return max((int(name[1]) for name in names if name), default=None)
