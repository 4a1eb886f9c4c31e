"""AdamW over state that lies where it is told to, updated panel by panel.

    m ← β₁ m + (1 − β₁) g          v ← β₂ v + (1 − β₂) g²
    w ← w − lr · λ · w − lr · (m / (1 − β₁ᵗ)) / (√(v / (1 − β₂ᵗ)) + ε)

(Loshchilov and Hutter 2019, "Decoupled Weight Decay Regularization", algorithm 2, with λ scaled by
lr as everyone has it.) A panel is a run of a parameter's numbers; working on one at a time bounds
the temporary memory and lets the state be elsewhere. `PlacedAdamW` walks the panels, `PagedAdamW`
does the arithmetic in the parameter's own precision by PyTorch's own function, and
`adamw8bit.AdamW8bit` does it on moments of 8 bits. State that is not paged needs none of this:
then `adamw` is `torch.optim.AdamW`.
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
"""Numbers worked on at a time, multiples of a block: few enough for a processor's cache, or many
enough to keep a GPU busy."""


class PlacedAdamW(torch.optim.Optimizer):
    """AdamW whose state is made with it, in a given memory, and stays there.

    Subclasses say what state a parameter has, and how a panel of it is updated.

    Args:
        parameters: parameters or groups of them, as for any optimiser of PyTorch.
        lr: learning rate, per step.
        betas: (β₁, β₂).
        eps: ε.
        weight_decay: λ.
        memory: where state lies. None: beside its parameters.
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
        """Return what state a parameter has, by name: a tensor has an entry a number or a block."""
        raise NotImplementedError

    def update(
        self, weight: Tensor, grad: Tensor, state: dict[str, Tensor], group: dict[str, Any]
    ) -> None:
        """Do one step of a panel in place.

        Args:
            weight: (n,).
            grad: (n,), of the same dtype.
            state: the panel's part of each tensor; `step` counts this one.
            group: hyperparameters.
        """
        raise NotImplementedError

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, and make the state of its parameters."""
        super().add_param_group(param_group)
        parameters: list[Tensor] = self.param_groups[-1]["params"]
        wanted = [self.wanted(parameter) for parameter in parameters]
        made = iter(self.memory.zeros([w for tensors in wanted for w in tensors.values()]))
        for parameter, tensors in zip(parameters, wanted, strict=True):
            state = {name: next(made) for name in tensors}
            self.state[parameter] = {"step": torch.tensor(0.0), **state}

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Do one step of every parameter that has a gradient."""
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
        # A view where the numbers lie in order, which they do but for tensors of a person's own.
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
        """Copy a saved state into this one's memory, exactly: nothing is cast.

        Raises:
            ValueError: it has other groups, parameters or tensors.
        """
        mine = self.state_dict()
        saved_groups, groups = state_dict["param_groups"], mine["param_groups"]
        if [len(g["params"]) for g in saved_groups] != [len(g["params"]) for g in groups]:
            raise ValueError("the saved state has other parameter groups")
        copies: list[tuple[Tensor, Tensor]] = []
        for index, saved in state_dict["state"].items():
            own = mine["state"][index]
            if saved.keys() != own.keys():
                raise ValueError(f"the saved state holds {[*saved]} for a parameter, not {[*own]}")
            for name, tensor in own.items():
                if (tensor.shape, tensor.dtype) != (saved[name].shape, saved[name].dtype):
                    raise ValueError(f"the saved {name} has another shape or precision")
                copies.append((tensor, saved[name]))
        for tensor, saved in copies:
            tensor.copy_(saved)
            self.memory.let_go()
        for group, saved in zip(self.param_groups, saved_groups, strict=True):
            group.update({name: value for name, value in saved.items() if name != "params"})


class PagedAdamW(PlacedAdamW):
    """AdamW with moments in the parameter's precision: the numbers of `torch.optim.AdamW`."""

    def wanted(self, parameter: Tensor) -> dict[str, Allocation]:
        """Return both moments, shaped as the parameter."""
        moment = Allocation(parameter.shape, parameter.dtype, parameter.device)
        return {"exp_avg": moment, "exp_avg_sq": moment}

    def update(
        self, weight: Tensor, grad: Tensor, state: dict[str, Tensor], group: dict[str, Any]
    ) -> None:
        """Do one step of a panel in place."""
        adamw(
            [weight],
            [grad],
            [state["exp_avg"]],
            [state["exp_avg_sq"]],
            [],
            [state["step"] - 1],  # it counts up what it is given, which here is done once a step
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
    """Return the entries of numbers `start` to `end` out of `count`."""
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
