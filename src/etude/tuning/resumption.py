"""Going on with a run: is it of the same base, where did it stop, what did it record before?"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from etude.core.errors import RunError
from etude.tuning.adapters.saved_parts import WEIGHTS
from etude.tuning.callbacks import Callback
from etude.tuning.config.recipe import Recipe
from etude.tuning.models.load import LoadedModel
from etude.tuning.runs.folder import RunFolder
from etude.tuning.training.checkpoint import last_checkpoint, list_checkpoints, remove_torn
from etude.tuning.training.measurement import Measurement
from etude.tuning.training.trainer import Trainer


def require_same_base(folder: RunFolder, loaded: LoadedModel, recipe: Recipe) -> None:
    """Record which weights the run is of, or refuse to resume it with others.

    The fingerprint covers the architecture, every tensor's name, shape and format, and bytes from
    the beginning, middle and end of each: a model trained further, or rounded anew, differs in
    nearly all of them. A run of a version that recorded nothing is resumed unchecked.

    Raises:
        RunError: the weights differ from those that the run began with.
    """
    now: dict[str, str] = {"model": loaded.origin.name, "fingerprint": loaded.origin.fingerprint}
    if recipe.adapter.start_from is not None:
        weights = Path(recipe.adapter.start_from) / WEIGHTS
        if weights.is_file():
            now["start_from"] = hashlib.sha256(weights.read_bytes()).hexdigest()
    before = folder.read_json("base.json")
    if before is None:
        if not list_checkpoints(folder.checkpoints):
            folder.write_json("base.json", now)
        return
    for key, what in (("fingerprint", "base's weights"), ("start_from", "adapter it starts from")):
        if before.get(key) != now.get(key):
            raise RunError(
                f"{folder.path}: the {what} ({before['model']}) differs from what this run began "
                "with, so it cannot be resumed; restore it, or start a new run"
            )


def resume_last(trainer: Trainer, folder: RunFolder, callbacks: Callback, *, extend: bool) -> None:
    """Restore the last whole checkpoint; without one, the run begins anew.

    Args:
        trainer: of this process.
        folder: of the run.
        callbacks: told of checkpoints that were passed over, and of what is resumed.
        extend: whether the recipe plans the number of steps anew.

    Raises:
        RunError: the run is to be extended and has no checkpoint, or is not of these data.
    """
    remove_torn(folder.checkpoints)
    checkpoint, passed = last_checkpoint(folder.checkpoints)
    for line in passed:
        callbacks.on_message(line)
    if checkpoint is None:
        if extend:
            raise RunError(
                f"{folder.path} has no checkpoint left to go on from; start a new run with "
                "adapter.start_from"
            )
        folder.truncate_metrics(-1)
        return
    trainer.resume(checkpoint, replan=extend)
    callbacks.on_resume(folder.read_metrics())
    counters = trainer.counters
    planned = f": {counters.total_steps} steps are planned now" if extend else ""
    callbacks.on_message(f"resuming after step {counters.step}{planned}")


def measured_before(folder: RunFolder) -> Measurement | None:
    """Return what an earlier process of the run measured before training; None: nothing."""
    kept = folder.read_json("before.json")
    return Measurement.from_json(kept) if kept else None


def recorded_peak(folder: RunFolder, key: str, known: int | None) -> int | None:
    """Return the largest value that any step recorded, in any process of the run, or `known`.

    The system counts a process's resident memory lazily, so its peak may be some pages below what
    it said at a step; and a report's peak must not lie below its own chart.
    """
    recorded = [record.get(key) for record in folder.read_metrics()]
    return max((value for value in [known, *recorded] if value is not None), default=None)


def before_training(resume: RunFolder | None) -> Callable[[], str]:
    """Return what a stop does before the first step of this process."""
    if resume is None:
        return lambda: "nothing is trained yet, so nothing is kept"
    return lambda: f"{resume.path} stays as it was saved, to be resumed"
