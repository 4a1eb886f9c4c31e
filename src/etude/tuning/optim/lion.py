"""Lion: sign of an interpolated momentum, one state per weight (Chen et al. 2023, algorithm 2).

    w ← w − lr · (sign(β₁ m + (1 − β₁) g) + λ w)          m ← β₂ m + (1 − β₂) g

Every weight moves by lr in every step, so lr should be 3 to 10 times smaller than AdamW's, and λ as
many times larger. PyTorch has no Lion, and a dependency for two lines of code is not worthwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from torch import Tensor

from etude.tuning.config.sections.train import TrainSpec
from etude.tuning.optim.paged import StateMemory
from etude.tuning.optim.registry import OptimizerKind, betas, moments, register


class Lion(torch.optim.Optimizer):
    """The Lion optimiser.

    Args:
        parameters: parameters or groups of them, as for any optimiser of PyTorch.
        lr: learning rate, per step.
        betas: (β₁, β₂), for the update and for the momentum.
        weight_decay: λ, decoupled.
    """

    def __init__(
        self,
        parameters: Iterable[Any],
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Update every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for parameter in cast("list[Tensor]", group["params"]):
                if parameter.grad is None:
                    continue
                state = cast("dict[str, Tensor]", self.state[parameter])
                if not state:
                    state["exp_avg"] = torch.zeros_like(parameter)
                momentum, grad = state["exp_avg"], parameter.grad
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                direction = momentum.mul(beta1).add_(grad, alpha=1 - beta1).sign_()
                parameter.add_(direction, alpha=-group["lr"])
                momentum.mul_(beta2).add_(grad, alpha=1 - beta2)
        return loss


def _make(
    groups: list[dict[str, Any]], spec: TrainSpec, memory: StateMemory | None
) -> torch.optim.Optimizer:
    del memory
    return Lion(groups, lr=spec.lr, betas=betas(spec, 0.99), weight_decay=spec.weight_decay)


register(OptimizerKind("lion", _make, moments(1)))
