"""Learning-rate schedules: warm-up, then the shape that the recipe names.

A schedule is a registered pure function of (recipe, step) that returns the learning rate after
warm-up as a fraction of the peak, so a resumed run has the exact rates of one that was never
stopped. `reduce_lr_on_plateau` depends on evaluations as well; what it remembers of them is a
`Plateau`, which is part of every checkpoint.

With step k counted from 1, the rates are those of transformers' and PyTorch's schedulers after k
calls of their `step()`: the first step has 1/W of the peak in a warm-up of W steps, step W has the
peak, and the last step of the run has the final rate. PyTorch's OneCycleLR alone begins with its
initial rate, and `one_cycle` with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from etude.core.errors import RecipeError
from etude.core.registry import Registry
from etude.tuning.config.sections.train import TrainSpec

LEAST_REDUCTION = 1e-8
"""Smallest change of the learning rate that a plateau makes, as in PyTorch (`eps`)."""

INVERSE_SQRT_SCALE = 10_000
"""Time scale of `inverse_sqrt` without warm-up, in steps, as in transformers."""


@dataclass(frozen=True)
class Moment:
    """An optimiser step within a run."""

    step: int
    """From 0."""
    total: int
    """Steps of the run."""
    warmup: int
    """Steps of warm-up among them."""

    @property
    def done(self) -> int:
        """Steps after warm-up, this one included."""
        return self.step - self.warmup + 1

    @property
    def span(self) -> int:
        """Steps of the run after warm-up, at least 1."""
        return max(1, self.total - self.warmup)

    @property
    def progress(self) -> float:
        """Completed fraction of the steps after warm-up, including this one, at most 1."""
        return min(1.0, self.done / self.span)


Schedule = Callable[[TrainSpec, Moment], float]
"""Returns the fraction of the peak at a moment after warm-up."""

SCHEDULES: Registry[Schedule] = Registry("schedule")


def schedule(function: Schedule) -> Schedule:
    """Register a schedule by its function's name."""
    return SCHEDULES.register(function.__name__, function)


def warmup_steps(spec: TrainSpec, total: int) -> int:
    """Return the steps of warm-up in a run of `total` steps."""
    if spec.warmup_steps is not None:
        return spec.warmup_steps
    return math.ceil(spec.warmup_ratio * total)


def decay_steps(spec: TrainSpec, total: int) -> int:
    """Return the steps of the decay that ends `warmup_stable_decay`."""
    if spec.lr_decay_steps is not None:
        return spec.lr_decay_steps
    return math.ceil(spec.lr_decay_ratio * total)


def learning_rate(spec: TrainSpec, step: int, total: int, reduced: float = 1.0) -> float:
    """Return the learning rate of optimiser step `step` (from 0) out of `total`.

    Warm-up rises to the peak, which its last step has: linearly from zero, or, for `one_cycle`,
    along half a cosine from `lr_start_ratio`.

    Args:
        spec: the recipe's `train` section.
        step: the step, from 0.
        total: steps of the run.
        reduced: `Plateau.scale`; 1 for schedules other than `reduce_lr_on_plateau`.
    """
    warmup = warmup_steps(spec, total)
    if step < warmup:
        if spec.lr_scheduler == "one_cycle":
            share = step / (warmup - 1) if warmup > 1 else 1.0
            return spec.lr * _cosine(spec.lr_start_ratio, 1.0, share)
        return spec.lr * reduced * (step + 1) / warmup
    return spec.lr * reduced * SCHEDULES[spec.lr_scheduler](spec, Moment(step, total, warmup))


def require_schedule_fits(spec: TrainSpec, total: int) -> None:
    """Refuse a schedule whose parts are longer than the run.

    Args:
        spec: the recipe's `train` section.
        total: steps of the run.

    Raises:
        RecipeError: warm-up, or warm-up and decay, take more steps than there are, or there are
            fewer steps than cycles.
    """
    warmup, decay = warmup_steps(spec, total), decay_steps(spec, total)
    given = spec.warmup_steps is not None or spec.lr_decay_steps is not None
    if spec.warmup_steps is not None and warmup > total:
        raise RecipeError(
            f"train.warmup_steps {warmup} is more than the {total} steps of the run; lower it, "
            "or raise train.epochs"
        )
    if spec.lr_scheduler == "warmup_stable_decay" and given and warmup + decay > total:
        raise RecipeError(
            f"train.lr_scheduler: warmup_stable_decay: {warmup} steps of warm-up and {decay} of "
            f"decay are more than the {total} steps of the run; lower train.warmup_steps or "
            "train.lr_decay_steps, or raise train.epochs"
        )
    left = total - warmup
    if spec.lr_scheduler == "cosine_with_restarts" and spec.lr_cycles > max(1, left):
        raise RecipeError(
            f"train.lr_cycles {spec.lr_cycles} is more than the {left} steps after warm-up, in a "
            f"run of {total}; lower it, or raise train.epochs"
        )


@schedule
def constant(spec: TrainSpec, at: Moment) -> float:
    """Stay at the peak."""
    del spec, at
    return 1.0


@schedule
def linear(spec: TrainSpec, at: Moment) -> float:
    """Decay linearly, to the final rate in the last step."""
    return spec.min_lr_ratio + (1.0 - spec.min_lr_ratio) * (1.0 - at.progress)


@schedule
def cosine(spec: TrainSpec, at: Moment) -> float:
    """Decay along half a cosine (Loshchilov and Hutter 2017, eq. 5, one cycle)."""
    return _falling(spec, at.progress)


@schedule
def cosine_with_restarts(spec: TrainSpec, at: Moment) -> float:
    """Decay along half a cosine `lr_cycles` times (ibid.), each time from the peak.

    The place within a cycle is computed in integers: as floats, 49 · (1/49) is below 1, and a
    restart would come a step late.
    """
    if at.done >= at.span:
        return spec.min_lr_ratio
    return _falling(spec, spec.lr_cycles * at.done % at.span / at.span)


@schedule
def inverse_sqrt(spec: TrainSpec, at: Moment) -> float:
    """Decay as √(W / k) in step k, W the warm-up (Vaswani et al. 2017, section 5.3).

    Without warm-up W is 10,000 steps, counted from the beginning of the run on.
    """
    del spec
    scale = at.warmup or INVERSE_SQRT_SCALE
    return 1.0 / math.sqrt((at.step + 1 + scale - at.warmup) / scale)


@schedule
def polynomial(spec: TrainSpec, at: Moment) -> float:
    """Decay as (1 − progress)^`lr_power`, to the final rate in the last step."""
    return (1.0 - spec.min_lr_ratio) * (1.0 - at.progress) ** spec.lr_power + spec.min_lr_ratio


@schedule
def one_cycle(spec: TrainSpec, at: Moment) -> float:
    """Fall along half a cosine after the rise, which is its warm-up (Smith and Topin 2019)."""
    return _cosine(1.0, spec.min_lr_ratio, at.progress)


@schedule
def warmup_stable_decay(spec: TrainSpec, at: Moment) -> float:
    """Stay at the peak, and decay in the last steps (Hu et al. 2024; Hägele et al. 2024)."""
    decay = decay_steps(spec, at.total)
    into = at.step + 1 - (at.total - decay)
    if into < 0:
        return 1.0
    progress = min(1.0, into / max(1, decay))
    if spec.lr_decay_shape == "cosine":
        return _falling(spec, progress)
    share = 1.0 - (math.sqrt(progress) if spec.lr_decay_shape == "1-sqrt" else progress)
    return share * (1.0 - spec.min_lr_ratio) + spec.min_lr_ratio


@schedule
def reduce_lr_on_plateau(spec: TrainSpec, at: Moment) -> float:
    """Stay at the peak; a `Plateau` lowers it."""
    del spec, at
    return 1.0


@dataclass
class Plateau:
    """What `reduce_lr_on_plateau` remembers: PyTorch's ReduceLROnPlateau, relative threshold.

    An evaluation is better if it beats the best one by more than `plateau_threshold` of it. After
    more than `plateau_patience` evaluations in a row that are not, the rate is multiplied by
    `plateau_factor`, and not again for the next `plateau_cooldown` evaluations.
    """

    scale: float = 1.0
    """The rate as a fraction of the peak."""
    best: float | None = None
    """Best evaluation so far."""
    bad: int = 0
    """Evaluations since, that were not better."""
    cooldown: int = 0
    """Evaluations left for which the rate stays."""

    def update(self, spec: TrainSpec, value: float, *, higher_is_better: bool) -> bool:
        """Take an evaluation into account, and return whether the rate was lowered.

        Args:
            spec: the recipe's `train` section.
            value: of `eval.best_metric`.
            higher_is_better: the metric's direction.
        """
        if self.best is None or self._better(spec, value, self.best, higher_is_better):
            self.best, self.bad = value, 0
        else:
            self.bad += 1
        if self.cooldown > 0:
            self.cooldown -= 1
            self.bad = 0
        if self.bad <= spec.plateau_patience:
            return False
        self.bad, self.cooldown = 0, spec.plateau_cooldown
        lower = max(self.scale * spec.plateau_factor, spec.min_lr_ratio)
        if spec.lr * (self.scale - lower) <= LEAST_REDUCTION:
            return False
        self.scale = lower
        return True

    @staticmethod
    def _better(spec: TrainSpec, value: float, best: float, higher_is_better: bool) -> bool:
        """Compare as PyTorch does, and with the right sign where the best is negative."""
        room = spec.plateau_threshold * abs(best)
        return value > best + room if higher_is_better else value < best - room


def _falling(spec: TrainSpec, progress: float) -> float:
    share = 0.5 * (1.0 + math.cos(math.pi * progress))
    return spec.min_lr_ratio + (1.0 - spec.min_lr_ratio) * share


def _cosine(start: float, end: float, progress: float) -> float:
    """Return the value between `start` and `end` along half a cosine."""
    return end + (start - end) / 2.0 * (math.cos(math.pi * progress) + 1.0)
