"""Optimiser registry: each module of this package registers an `OptimizerKind`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from etude.core.registry import Registry

if TYPE_CHECKING:
    import torch

    from etude.tuning.config.sections.train import TrainSpec
    from etude.tuning.optim.paged import StateMemory

FLOAT32 = 4
"""Bytes of a float32."""


@dataclass(frozen=True)
class OptimizerKind:
    """An optimiser selectable in a recipe."""

    name: str
    """Its name in `train.optimizer`."""

    make: Callable[[list[dict[str, Any]], TrainSpec, StateMemory | None], torch.optim.Optimizer]
    """Constructs it from parameter groups, and for paged state the memory to use."""

    state_bytes: Callable[[Sequence[int]], int]
    """Returns the size in bytes of the state of a float32 parameter of a given shape, excluding the
    step count."""


OPTIMIZERS: Registry[OptimizerKind] = Registry("optimiser", __package__)


def register(kind: OptimizerKind) -> OptimizerKind:
    """Register an optimiser by its name."""
    return OPTIMIZERS.register(kind.name, kind)


def moments(count: int) -> Callable[[Sequence[int]], int]:
    """Return a size function for state of `count` float32 values per weight."""
    return lambda shape: count * FLOAT32 * prod(shape)


def betas(spec: TrainSpec, beta2: float) -> tuple[float, float]:
    """Return (β₁, β₂) of a recipe; the defaults are 0.9 and `beta2`."""
    return (
        0.9 if spec.beta1 is None else spec.beta1,
        beta2 if spec.beta2 is None else spec.beta2,
    )
