"""Exponential moving average of the trained weights.

    θ̄ ← d_t θ̄ + (1 − d_t) θ        d_t = min(d, (1 + t) / (10 + t)),  t = 1, 2, ...

after optimiser step t, from θ̄ = θ before the first (Polyak and Juditsky 1992; the warm-up of d is
TensorFlow's, without which a short run would end near its initial weights). The average is what is
evaluated and saved; training goes on from θ. It is part of every checkpoint, so a resumed run has
the same average, bit for bit.

Factors are averaged one by one: the average of B A is not the product of the averages, but with
weights that move little within the window 1 / (1 − d) the two are close.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from etude.tuning.callbacks import Callback

_PREFIX = "average."


class WeightAverage(Callback):
    """The average of the trained weights.

    Args:
        parameters: the trained weights by name.
        decay: d.
    """

    def __init__(self, parameters: Mapping[str, Tensor], decay: float) -> None:
        self.decay = decay
        self._weights = {name: weight.detach() for name, weight in parameters.items()}
        self._average = {name: weight.clone() for name, weight in self._weights.items()}

    def state(self) -> Mapping[str, Tensor]:
        """Return the average by name."""
        return {f"{_PREFIX}{name}": value for name, value in self._average.items()}

    @torch.no_grad()
    def on_optimizer_step(self, step: int) -> None:
        """Take the weights after step `step`, from 1, into the average."""
        own = 1 - min(self.decay, (1 + step) / (10 + step))
        for name, average in self._average.items():
            average.lerp_(self._weights[name], own)

    @torch.no_grad()
    def apply(self) -> None:
        """Set the weights to the average."""
        for name, weight in self._weights.items():
            weight.copy_(self._average[name])

    @contextmanager
    def applied(self) -> Generator[None]:
        """Set the weights to the average inside the block, and back afterwards."""
        kept = {name: weight.clone() for name, weight in self._weights.items()}
        self.apply()
        try:
            yield
        finally:
            with torch.no_grad():
                for name, weight in self._weights.items():
                    weight.copy_(kept[name])
