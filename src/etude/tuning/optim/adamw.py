"""AdamW with relocatable optimiser state, updated panel by panel.

    m ← β₁ m + (1 − β₁) g          v ← β₂ v + (1 − β₂) g²
    w ← w − lr · λ · w − lr · (m / (1 − β₁ᵗ)) / (√(v / (1 − β₂ᵗ)) + ε)

(Loshchilov and Hutter 2019, "Decoupled Weight Decay Regularization", algorithm 2, with λ scaled by
lr, as is usual.) A panel is a contiguous range of a parameter's elements; updating one at a time
bounds the temporary memory and lets the state reside elsewhere. `PlacedAdamW` iterates over the
panels; `PagedAdamW` updates them in the parameter's own precision by PyTorch's function;
`adamw8bit.AdamW8bit` stores the moments in 8 bits. For state that is not paged, `adamw` is
`torch.optim.AdamW`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from etude.tuning.config.sections.train import TrainSpec
from etude.tuning.kernels.codebooks import DYNAMIC_BLOCK
from etude.tuning.optim.paged import Allocation, StateMemory
from etude.tuning.optim.registry import OptimizerKind, betas, moments, register

PANEL = {"cpu": 1 << 18, "cuda": 1 << 24}
"""Elements per panel, a multiple of a quantisation block: few enough for a CPU's cache, or many
enough to keep a GPU busy."""


class PlacedAdamW(torch.optim.Optimizer):
    """AdamW whose state is allocated at construction in a given memory.

    Subclasses define the state of a parameter and the update of a panel.

    Args:
        parameters: parameters or groups of them, as for any optimiser of PyTorch.
        lr: learning rate, per step.
        betas: (β₁, β₂).
        eps: ε.
        weight_decay: λ.
        memory: where the state is allocated. None: on the parameters' devices.
    """

    def __init__(
        self,
        parameters: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        memory: StateMemory | None = None,
    ) -> None:
        self.memory = memory or StateMemory()
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(parameters, defaults)

    def wanted(self, parameter: Tensor) -> dict[str, Allocation]:
        """Return the state tensors of a parameter by name, one entry per element or per block."""
        raise NotImplementedError

    def update(
        self, weight: Tensor, grad: Tensor, state: dict[str, Tensor], group: dict[str, Any]
    ) -> None:
        """Update one panel in place.

        Args:
            weight: (n,).
            grad: (n,), of the same dtype.
            state: the panel's slice of each tensor; `step` includes this step.
            group: hyperparameters.
        """
        raise NotImplementedError

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, and allocate the state of its parameters."""
        super().add_param_group(param_group)
        parameters: list[Tensor] = self.param_groups[-1]["params"]
        wanted = [self.wanted(parameter) for parameter in parameters]
        made = iter(self.memory.zeros([w for tensors in wanted for w in tensors.values()]))
        for parameter, tensors in zip(parameters, wanted, strict=True):
            state = {name: next(made) for name in tensors}
            self.state[parameter] = {"step": torch.tensor(0.0), **state}

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Update every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in cast("list[Tensor]", group["params"]):
                if parameter.grad is not None:
                    self._update_in_panels(parameter, parameter.grad, group)
        return loss

    def _update_in_panels(self, parameter: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        state = cast("dict[str, Tensor]", self.state[parameter])
        state["step"] += 1
        panel = PANEL.get(parameter.device.type, PANEL["cpu"])
        # A view where the elements are contiguous, as they are except in unusual user tensors.
        weight, grad = parameter.detach().reshape(-1), grad.reshape(-1)
        for start in range(0, weight.numel(), panel):
            end = min(start + panel, weight.numel())
            there = {
                name: _part(tensor, start, end, weight.numel())
                for name, tensor in state.items()
                if name != "step"
            }
            here = {name: t.to(weight.device, non_blocking=True) for name, t in there.items()}
            here["step"] = state["step"]
            self.update(weight[start:end], grad[start:end], here, group)
            for name, tensor in there.items():
                if here[name] is not tensor:
                    tensor.copy_(here[name])
            del here, there
            self.memory.let_go()
        if weight.data_ptr() != parameter.data_ptr():
            parameter.copy_(weight.view_as(parameter))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Copy a saved state into the allocated memory without casting.

        Raises:
            ValueError: its groups, parameters or tensors differ.
        """
        mine = self.state_dict()
        saved_groups, groups = state_dict["param_groups"], mine["param_groups"]
        if [len(g["params"]) for g in saved_groups] != [len(g["params"]) for g in groups]:
            raise ValueError("the saved state has different parameter groups")
        copies: list[tuple[Tensor, Tensor]] = []
        for index, saved in state_dict["state"].items():
            own = mine["state"][index]
            if saved.keys() != own.keys():
                raise ValueError(f"the saved state holds {[*saved]} for a parameter, not {[*own]}")
            for name, tensor in own.items():
                if (tensor.shape, tensor.dtype) != (saved[name].shape, saved[name].dtype):
                    raise ValueError(f"the saved {name} has a different shape or dtype")
                copies.append((tensor, saved[name]))
        for tensor, saved in copies:
            tensor.copy_(saved)
            self.memory.let_go()
        for group, saved in zip(self.param_groups, saved_groups, strict=True):
            group.update({name: value for name, value in saved.items() if name != "params"})


class PagedAdamW(PlacedAdamW):
    """AdamW with moments in the parameter's precision; same results as `torch.optim.AdamW`."""

    def wanted(self, parameter: Tensor) -> dict[str, Allocation]:
        """Return both moments, shaped as the parameter."""
        moment = Allocation(parameter.shape, parameter.dtype, parameter.device)
        return {"exp_avg": moment, "exp_avg_sq": moment}

    def update(
        self, weight: Tensor, grad: Tensor, state: dict[str, Tensor], group: dict[str, Any]
    ) -> None:
        """Update one panel in place."""
        adamw(
            [weight],
            [grad],
            [state["exp_avg"]],
            [state["exp_avg_sq"]],
            [],
            [state["step"] - 1],  # incremented by the function; here, once per step
            foreach=False,
            fused=False,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )


def _part(tensor: Tensor, start: int, end: int, count: int) -> Tensor:
    """Return the state entries of elements `start` to `end` out of `count`."""
    per = 1 if tensor.numel() == count else DYNAMIC_BLOCK
    return tensor.view(-1)[start // per : -(-end // per)]


def _make(
    groups: list[dict[str, Any]], spec: TrainSpec, memory: StateMemory | None
) -> torch.optim.Optimizer:
    shared: dict[str, Any] = {
        "lr": spec.lr,
        "betas": betas(spec, 0.999),
        "weight_decay": spec.weight_decay,
    }
    if memory is None:
        return torch.optim.AdamW(groups, **shared)
    return PagedAdamW(groups, memory=memory, **shared)


register(OptimizerKind("adamw", _make, moments(2)))
