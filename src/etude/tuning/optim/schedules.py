"""Learning-rate schedules: linear warm-up, then the decay that the recipe names.

A schedule is a registered pure function that returns the learning rate after warm-up as a fraction
of the peak.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from etude.core.registry import Registry
from etude.tuning.config.sections.train import TrainSpec

Schedule = Callable[[int, int, int, float], float]
"""(step from 0, total steps, warm-up steps, final fraction of the peak) to the fraction of the peak
at that step; called for steps after warm-up."""

SCHEDULES: Registry[Schedule] = Registry("schedule")


def schedule(function: Schedule) -> Schedule:
    """Register a schedule by its function's name."""
    return SCHEDULES.register(function.__name__, function)


def learning_rate(spec: TrainSpec, step: int, total: int) -> float:
    """Return the learning rate of optimiser step `step` (from 0) out of `total`.

    Warm-up rises linearly and reaches the peak at its last step.
    """
    warmup = math.ceil(spec.warmup_ratio * total)
    if step < warmup:
        return spec.lr * (step + 1) / warmup
    return spec.lr * SCHEDULES[spec.lr_scheduler](step, total, warmup, spec.min_lr_ratio)


@schedule
def cosine(step: int, total: int, warmup: int, final: float) -> float:
    """Decay along half a cosine (Loshchilov and Hutter 2017, eq. 5, one cycle) to `final`."""
    share = 0.5 * (1.0 + math.cos(math.pi * _progress(step, total, warmup)))
    return final + (1.0 - final) * share


@schedule
def linear(step: int, total: int, warmup: int, final: float) -> float:
    """Decay linearly, to `final` in the last step."""
    return final + (1.0 - final) * (1.0 - _progress(step, total, warmup))


@schedule
def constant(step: int, total: int, warmup: int, final: float) -> float:
    """Stay at the peak."""
    del step, total, warmup, final
    return 1.0


def _progress(step: int, total: int, warmup: int) -> float:
    """Return the completed fraction of the steps after warm-up, including this one, at most 1."""
    return min(1.0, (step - warmup + 1) / max(1, total - warmup))
