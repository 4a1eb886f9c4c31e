"""Frozen linear layers with adapters, grouped by their input, in layers that are one autograd node.

    y_i = x W_iᵀ + b_i + s_i h_i B_iᵀ        [h_1 h_2 …] = x [A_1; A_2; …]ᵀ

What projections of one input read of it, they read once: their A's are stacked. The equations of
the adapted products are in `adapters.product`, those of products that an adapter scales (DoRA) in
`adapters.scaled_product`.

With dropout each adapter has an input of its own. What is dropped is drawn as plain layers draw it,
in the same order from the same generator, so a run has the same numbers either way; for the
backward pass it is drawn again, from the state that the generator had.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

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
from etude.tuning.adapters.scaled_product import (
    magnitude_gradient,
    scaled_gradient,
    scaled_output,
)

Factors = tuple[Tensor, ...]
"""A (r, in) and B (out, r); and DoRA's magnitude m (out,)."""


@dataclass(frozen=True)
class Projection:
    """A frozen linear layer and the scale of its adapter."""

    base: LinearLike
    scaling: float | None
    """s; None: no adapter."""

    norm: Tensor | None = None
    """The norms that divide a magnitude, (out,) float32, constant; None: the adapter has none."""

    dropout: float = 0.0
    """Probability of zeroing an element of the adapter's input."""


class Group:
    """Projections of one input, with their factors; they share one thin product."""

    def __init__(self, members: Sequence[Projection], factors: Sequence[Factors | None]) -> None:
        self.members = members
        self.factors = factors
        self.low = [pair for pair in factors if pair is not None]
        self.ranks = [len(pair[0]) for pair in self.low]
        self.drops = any(member.dropout for member in members)
        self.directions: list[Tensor] = []
        """Outputs before they are scaled, of the members whose adapter scales."""
        self.state: Tensor | None = None
        """That of the random generator before dropout."""
        self._all: Tensor | None = None

    def _stacked(self, dtype: torch.dtype) -> Tensor:
        """Return all A's stacked, (Σ r, in)."""
        if self._all is None:
            self._all = torch.cat([pair[0] for pair in self.low]).to(dtype)
        return self._all

    def _parts(self, thin: Tensor, dim: int) -> tuple[Tensor, ...]:
        """Split a tensor of width Σ r into the parts of each adapter."""
        split = cast("Callable[..., tuple[Tensor, ...]]", torch.split_with_sizes)
        return split(thin, self.ranks, dim) if self.low else ()

    def _noise(self, x: Tensor) -> list[Tensor]:
        """Return what the input of each adapter is multiplied by, as `F.dropout` draws it."""
        generator = None
        if isinstance(x, FakeTensor):
            pass  # memory is planned; nothing is drawn
        elif self.state is None:
            self.state = torch.get_rng_state()
        else:
            generator = torch.Generator()
            generator.set_state(self.state)
        return [
            torch.empty_like(x).bernoulli_(1 - m.dropout, generator=generator).div_(1 - m.dropout)
            for m, pair in zip(self.members, self.factors, strict=True)
            if pair is not None
        ]

    def forward(self, x: Tensor, add: Tensor | None = None) -> tuple[list[Tensor], Tensor]:
        """Return each member's output (plus `add` for a single member), and the thin product h."""
        sources = [x * noise for noise in self._noise(x)] if self.drops else []
        if not self.low:
            h = x.new_empty(len(x), 0)
        elif sources:
            down = self._parts(self._stacked(x.dtype), 0)
            each = zip(sources, down, strict=True)
            h = torch.cat([thin_input(source, A) for source, A in each], 1)
        else:
            h = thin_input(x, self._stacked(x.dtype))
        thin, dropped = iter(self._parts(h, 1)), iter(sources)
        outputs: list[Tensor] = []
        rounded = rounded_for((member.base for member in self.members), x)
        for member, pair in zip(self.members, self.factors, strict=True):
            if pair is None or member.scaling is None:
                outputs.append(base_product(member.base, x, add, rounded=rounded))
                continue
            low = (next(thin), pair[1], member.scaling)
            source = next(dropped, None)
            if member.norm is None:
                outputs.append(base_product(member.base, x, add, thin=low, rounded=rounded))
                continue
            y, direction = scaled_output(
                member.base,
                x,
                pair[2] / member.norm,
                low,
                dropped=source,
                add=add,
                rounded=rounded,
            )
            outputs.append(y)
            self.directions.append(direction)
        return outputs, h

    def factor_gradients(
        self, x: Tensor, h: Tensor, gradients: Sequence[Tensor], gh: Tensor | None
    ) -> list[Tensor | None]:
        """Return the gradients of each member's factors, flat, given those of outputs and h."""
        thin, directions = iter(self._parts(h, 1)), iter(self.directions)
        grad_A = iter(self._gradients_of_A(x, gh))
        flat: list[Tensor | None] = []
        for member, pair, g in zip(self.members, self.factors, gradients, strict=True):
            if pair is None or member.scaling is None:
                flat += [None] * _EACH
                continue
            A, B, *_ = pair
            flat.append(next(grad_A).to(A.dtype))
            turned = _turned(member, pair, g)
            flat.append(gradient_of_B(turned, next(thin), member.scaling, B.dtype))
            norm = member.norm
            flat.append(None if norm is None else magnitude_gradient(g, next(directions), norm))
        return flat

    def _gradients_of_A(self, x: Tensor, gh: Tensor | None) -> Sequence[Tensor]:  # noqa: N802
        if gh is None:
            return ()
        if not self.drops:
            return self._parts(gradient_of_A(gh, x), 0)
        each = zip(self._parts(gh, 1), self._noise(x), strict=True)
        return [gradient_of_A(part.contiguous(), x * noise) for part, noise in each]

    def input_gradient(self, gradients: Sequence[Tensor], gh: Tensor | None) -> Tensor:
        """Return the gradient of x, given those of the outputs and of h."""
        dx = None
        if gh is not None and not self.drops:
            dx = thin_output(gh, self._stacked(gh.dtype).T, 1.0)
        for member, pair, g in zip(self.members, self.factors, gradients, strict=True):
            whole = g if self.drops else _turned(member, pair, g)
            dx = base_gradient(member.base, whole, dx)
        assert dx is not None, "a group has members"
        if gh is not None and self.drops:
            self._add_dropped(dx, gradients, gh)
        return dx

    def _add_dropped(self, dx: Tensor, gradients: Sequence[Tensor], gh: Tensor) -> None:
        """Add the gradients of the adapters' inputs to that of x, each where it was not dropped."""
        parts = iter(self._parts(gh, 1))
        # Only the shape of x counts.
        noise = iter(self._noise(dx))
        for member, pair, g in zip(self.members, self.factors, gradients, strict=True):
            if pair is None:
                continue
            part = thin_output(next(parts).contiguous(), pair[0].to(gh.dtype).T, 1.0)
            if member.norm is not None:
                rest = scaled_gradient(g, pair[2] / member.norm - 1)
                part = base_gradient(member.base, rest, part)
            dx.addcmul_(part, next(noise))

    def thin_gradient(self, gradients: Sequence[Tensor]) -> Tensor | None:
        """Return the gradient of h, (T, Σ r); None without adapters."""
        parts = [
            thin_gradient(_turned(member, pair, g), pair[1], member.scaling)
            for member, pair, g in zip(self.members, self.factors, gradients, strict=True)
            if pair is not None and member.scaling is not None
        ]
        return torch.cat(parts, 1) if parts else None


_EACH = 3
"""Tensors a projection is given: A, B and a magnitude."""


def _turned(member: Projection, pair: Factors | None, g: Tensor) -> Tensor:
    """Return the gradient of the direction, given that of an output."""
    if pair is None or member.norm is None:
        return g
    return scaled_gradient(g, pair[2] / member.norm)


def pairs(factors: Sequence[Tensor | None]) -> list[Factors | None]:
    """Return the factors of each projection, given flat: A, B, m, A, B, m, ..."""
    each = zip(factors[::_EACH], factors[1::_EACH], factors[2::_EACH], strict=True)
    return [
        None if A is None or B is None else (A, B) if m is None else (A, B, m) for A, B, m in each
    ]


def flat(factors: Sequence[Factors | None]) -> list[Tensor | None]:
    """Return A, B and m of each projection in one list, None for what it has not."""
    found: list[Tensor | None] = []
    for pair in factors:
        given = pair or ()
        found += [*given, *[None] * (_EACH - len(given))]
    return found
