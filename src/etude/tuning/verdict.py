"""Verdict on a run: whether it ended worse than it began, and what to do about it.

A run whose held-out loss ends far above where it began has unlearnt something. Its adapter is then
saved as it was before training, the best state known, because the weights of a better evaluation
during training would have been restored already (`Trainer`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from etude.core import units as q
from etude.core.atomic_files import replace_file
from etude.tuning.config.recipe import Recipe
from etude.tuning.metrics.metric import Metric
from etude.tuning.training.measurement import Measurement
from etude.tuning.training.trainer import Trainer

FAR = 1.5
"""Held-out loss after training, as a multiple of that before, above which a run has failed. Runs
that overfit end 5 to 30 % above; those with too high a learning rate at two to five times."""


GAIN = 5.0
"""Points of the task's first metric that outweigh a loss however high: a classifier that is right
more often and surer of its errors has not failed."""


def is_far_worse(before: Measurement, after: Measurement, metrics: Sequence[Metric]) -> bool:
    """Whether the loss ended `FAR` times above where it began, or is not finite.

    Args:
        before: the model before training.
        after: the model after it.
        metrics: of the task beside the loss, the most important first.
    """
    return not after.loss <= FAR * before.loss and _gain(before, after, metrics) < GAIN


def verdict(
    before: Measurement,
    ended: Measurement,
    recipe: Recipe,
    metrics: Sequence[Metric],
    *,
    restored: bool,
) -> str | None:
    """Return a line for the user; None for a run that ended no worse than it began.

    Args:
        before: the model before training.
        ended: the model when training ended.
        recipe: of the run.
        metrics: of the task beside the loss, the most important first.
        restored: whether the weights before training were restored and saved.
    """
    far = is_far_worse(before, ended, metrics)
    if ended.loss <= before.loss or (not far and _gain(before, ended, metrics) > 0):
        return None
    rose = f"the loss on held-out samples rose from {q.loss(before.loss)} to {_loss(ended.loss)}"
    lower = f"lower train.lr ({recipe.train.lr:g})"
    if not far:
        advice = (
            f"{lower} or train for fewer epochs"
            if recipe.train.eval_every is not None
            else f"{lower}, or let train.eval_every keep the best evaluation"
        )
        return f"training made the model worse: {rose}; {advice}"
    kept = (
        "saved is the adapter as it was before training, the best state known"
        if restored
        else "the base model is better than what was saved"
    )
    return f"training ended far worse than it began: {rose}; {kept}. Next time {lower}"


def _gain(before: Measurement, after: Measurement, metrics: Sequence[Metric]) -> float:
    """Return the points, 0 to 100, that the first metric of both measurements gained."""
    for metric in metrics:
        first, last = before.metrics.get(metric.name), after.metrics.get(metric.name)
        if first is None or last is None or metric.format not in ("percent", "points"):
            continue
        gain = (last - first) * (100.0 if metric.format == "percent" else 1.0)
        return gain if metric.higher_is_better else -gain
    return 0.0


def _loss(value: float) -> str:
    return q.loss(value) if math.isfinite(value) else str(value)


class WeightsBefore:
    """The trained weights before the first step, in a file of the run until it ends."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._file = trainer.folder.path / "before.pt"

    def keep(self) -> None:
        """Write the weights. A full disk is no error yet: the first checkpoint will say it."""
        try:
            replace_file(self._file, lambda aside: torch.save(self._trainer.tensors(), aside))
        except (OSError, RuntimeError):  # torch's zip writer hides a full disk behind the latter
            return

    def restore(self) -> bool:
        """Set the weights to those before training; return False where they were not kept."""
        if not self._file.exists():
            return False
        self._trainer.set_weights(torch.load(self._file, map_location="cpu", weights_only=True))
        return True

    def forget(self) -> None:
        """Remove the file."""
        self._file.unlink(missing_ok=True)
