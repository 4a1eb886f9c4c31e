"""Optimisers by name. Each is a module of this package that registers an `OptimizerKind`."""

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
"""Bytes of a number."""


@dataclass(frozen=True)
class OptimizerKind:
    """One optimiser that a recipe may name."""

    name: str
    """As `train.optimizer` names it."""

    make: Callable[[list[dict[str, Any]], TrainSpec, StateMemory | None], torch.optim.Optimizer]
    """Makes it over parameter groups; where state is paged, the memory that it goes to is given."""

    state_bytes: Callable[[Sequence[int]], int]
    """Returns the bytes of state of a float32 parameter of the given shape, the step's count left
    out."""


OPTIMIZERS: Registry[OptimizerKind] = Registry("optimiser", __package__)


def register(kind: OptimizerKind) -> OptimizerKind:
    """Make an optimiser known by its name."""
    return OPTIMIZERS.register(kind.name, kind)


def moments(count: int) -> Callable[[Sequence[int]], int]:
    """Return the size of state that holds `count` float32 numbers for each of the parameter's."""
    return lambda shape: count * FLOAT32 * prod(shape)


def betas(spec: TrainSpec, beta2: float) -> tuple[float, float]:
    """Return (β₁, β₂) of a recipe; 0.9 and `beta2` where it does not say."""
    return (
        0.9 if spec.beta1 is None else spec.beta1,
        beta2 if spec.beta2 is None else spec.beta2,
    )
