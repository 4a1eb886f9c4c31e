"""Frozen linear layers with adapters, grouped by their input, in layers that are one autograd node.

    y_i = x W_iᵀ + b_i + s_i h_i B_iᵀ        [h_1 h_2 …] = x [A_1; A_2; …]ᵀ

What projections of one input read of it, they read once: their A's are stacked. The equations of
the adapted products are in `adapters.product`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from etude.tuning.adapters.bases import LinearLike
from etude.tuning.adapters.product import (
    base_gradient,
    base_product,
    gradient_of_A,
    gradient_of_B,
    rounded_for,
    thin_gradient,
    thin_input,
    thin_output,
)

Factors = tuple[Tensor, Tensor]
"""A (r, in) and B (out, r)."""


@dataclass(frozen=True)
class Projection:
    """A frozen linear layer and the scale of its adapter."""

    base: LinearLike
    scaling: float | None
    """s; None: no adapter."""


class Group:
    """Projections of one input, with their factors; they share one thin product."""

    def __init__(self, members: Sequence[Projection], factors: Sequence[Factors | None]) -> None:
        self.members = members
        self.factors = factors
        self.low = [pair for pair in factors if pair is not None]
        self.ranks = [len(A) for A, _ in self.low]
        self._all: Tensor | None = None

    def _stacked(self, dtype: torch.dtype) -> Tensor:
        """Return all A's stacked, (Σ r, in)."""
        if self._all is None:
            self._all = torch.cat([A for A, _ in self.low]).to(dtype)
        return self._all

    def _parts(self, thin: Tensor, dim: int) -> tuple[Tensor, ...]:
        """Split a tensor of width Σ r into the parts of each adapter."""
        split = cast("Callable[..., tuple[Tensor, ...]]", torch.split_with_sizes)
        return split(thin, self.ranks, dim) if self.low else ()

    def forward(self, x: Tensor, add: Tensor | None = None) -> tuple[list[Tensor], Tensor]:
        """Return each member's output (plus `add` for a single member), and the thin product h."""
        h = thin_input(x, self._stacked(x.dtype)) if self.low else x.new_empty(len(x), 0)
        thin = iter(self._parts(h, 1))
        outputs: list[Tensor] = []
        rounded = rounded_for((member.base for member in self.members), x)
        for member, pair in zip(self.members, self.factors, strict=True):
            low = None
            if pair is not None and member.scaling is not None:
                low = (next(thin), pair[1], member.scaling)
            outputs.append(base_product(member.base, x, add, thin=low, rounded=rounded))
        return outputs, h

    def factor_gradients(
        self, x: Tensor, h: Tensor, gradients: Sequence[Tensor], gh: Tensor | None
    ) -> list[Tensor | None]:
        """Return the gradients of A and B of each member, flat, given those of outputs and h."""
        thin = iter(self._parts(h, 1))
        grad_A = iter(() if gh is None else self._parts(gradient_of_A(gh, x), 0))
        flat: list[Tensor | None] = []
        for member, pair, g in zip(self.members, self.factors, gradients, strict=True):
            if pair is None or member.scaling is None:
                flat += [None, None]
                continue
            A, B = pair
            flat.append(next(grad_A).to(A.dtype))
            flat.append(gradient_of_B(g, next(thin), member.scaling, B.dtype))
        return flat

    def input_gradient(self, gradients: Sequence[Tensor], gh: Tensor | None) -> Tensor:
        """Return the gradient of x, given those of the outputs and of h."""
        dx = None if gh is None else thin_output(gh, self._stacked(gh.dtype).T, 1.0)
        for member, g in zip(self.members, gradients, strict=True):
            dx = base_gradient(member.base, g, dx)
        assert dx is not None, "a group has members"
        return dx

    def thin_gradient(self, gradients: Sequence[Tensor]) -> Tensor | None:
        """Return the gradient of h, (T, Σ r); None without adapters."""
        parts = [
            thin_gradient(g, pair[1], member.scaling)
            for member, pair, g in zip(self.members, self.factors, gradients, strict=True)
            if pair is not None and member.scaling is not None
        ]
        return torch.cat(parts, 1) if parts else None


def pairs(factors: Sequence[Tensor | None]) -> list[Factors | None]:
    """Return the factors of each projection, given flat: A, B, A, B, ..."""
    both = zip(factors[::2], factors[1::2], strict=True)
    return [None if A is None or B is None else (A, B) for A, B in both]


def flat(factors: Sequence[Factors | None]) -> list[Tensor | None]:
    """Return A and B of each projection in one list, None twice for one without."""
    return [factor for pair in factors for factor in (pair or (None, None))]
