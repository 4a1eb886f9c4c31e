"""What the first optimiser step moved: the proof that something is trained.

An element of each trained tensor is compared before and after, where its gradient is largest. A
LoRA's A has no gradient yet, as B is zero, so modules are counted: one moved tensor is enough.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch

from etude.core.errors import RunError

_SHOWN = 4


@dataclass(frozen=True)
class FirstStep:
    """The trained tensors at one element each, before the first optimiser step."""

    parameters: Mapping[str, torch.nn.Parameter]
    places: Mapping[str, int]
    """Index of the largest gradient in each flattened tensor; none where there is no gradient."""

    before: Mapping[str, float]

    @classmethod
    def watch(cls, parameters: Mapping[str, torch.nn.Parameter]) -> Self:
        """Note the values before the step, once the gradients are there."""
        places = {
            name: int(p.grad.abs().argmax())
            for name, p in parameters.items()
            if p.grad is not None and p.grad.is_floating_point()
        }
        return cls(parameters, places, cls._values(parameters, places))

    @staticmethod
    def _values(
        parameters: Mapping[str, torch.nn.Parameter], places: Mapping[str, int]
    ) -> dict[str, float]:
        return {name: float(parameters[name].detach().flatten()[i]) for name, i in places.items()}

    def note(self, lr: float) -> str | None:
        """Return a line about what did not move; None if every module did, or nothing could.

        Args:
            lr: learning rate of the step; a warm-up that begins at zero moves nothing.

        Raises:
            RunError: nothing moved.
        """
        if lr == 0.0:
            return None
        after = self._values(self.parameters, self.places)
        moved = {name for name in self.places if after[name] != self.before[name]}
        if not moved:
            raise RunError(
                "the first step moved none of the trained tensors: no gradient reaches them, or "
                "train.lr is too small for their dtype; check adapter.target_modules"
            )
        everything = {_module(name) for name in self.parameters}
        still = sorted(everything - {_module(name) for name in moved})
        if not still:
            return None
        names = ", ".join(still[:_SHOWN]) + (" ..." if len(still) > _SHOWN else "")
        return (
            f"the first step trained {len(everything) - len(still)} of {len(everything)} modules; "
            f"no gradient reached {names}"
        )


def _module(name: str) -> str:
    """Return the path of the module that a trained tensor belongs to."""
    return name.rpartition(".")[0]
