"""Adafactor, PyTorch's: factored second moments per row and column (Shazeer and Stern 2018).

Adafactor scales lr by the root mean square of the weight, but at least by ε₂. ε₂ is 1 here instead
of 1e-3, so that `train.lr` is the step size as for the other optimisers, and factors initialised to
zero can move.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch

from etude.tuning.config.sections.train import TrainSpec
from etude.tuning.optim.paged import StateMemory
from etude.tuning.optim.registry import FLOAT32, OptimizerKind, register


def _make(
    groups: list[dict[str, Any]], spec: TrainSpec, memory: StateMemory | None
) -> torch.optim.Optimizer:
    del memory
    return torch.optim.Adafactor(
        groups, eps=(None, 1.0), lr=spec.lr, weight_decay=spec.weight_decay
    )


def _state_bytes(shape: Sequence[int]) -> int:
    count = prod(shape)
    if len(shape) < 2:
        return FLOAT32 * count
    return FLOAT32 * (count // shape[-1] + count // shape[-2])


register(OptimizerKind("adafactor", _make, _state_bytes))
