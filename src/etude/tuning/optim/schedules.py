"""Learning-rate schedules: linear warm-up, then cosine, linear or constant."""

from __future__ import annotations

import math

from etude.tuning.config.sections.train import TrainSpec


def learning_rate(spec: TrainSpec, step: int, total: int) -> float:
    """Return the learning rate of optimiser step `step` (from 0) out of `total`.

    Warm-up rises linearly and reaches the peak at its last step; the decay ends at
    `min_lr_ratio` × peak in the last step (cosine: Loshchilov and Hutter 2017, eq. 5, one cycle).
    """
    warmup = math.ceil(spec.warmup_ratio * total)
    if step < warmup:
        return spec.lr * (step + 1) / warmup
    if spec.lr_scheduler == "constant":
        return spec.lr
    progress = min(1.0, (step - warmup + 1) / max(1, total - warmup))
    if spec.lr_scheduler == "linear":
        share = 1.0 - progress
    else:
        share = 0.5 * (1.0 + math.cos(math.pi * progress))
    return spec.lr * (spec.min_lr_ratio + (1.0 - spec.min_lr_ratio) * share)
