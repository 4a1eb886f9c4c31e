"""Product of a linear layer whose outputs an adapter scales (DoRA), as one autograd node.

    d = x Wᵀ + s · (x Aᵀ) Bᵀ        y = ρ ∘ d + b,  ρ = m / n        (Liu et al. 2024, eq. 5)

    g' = ρ ∘ g      dB = s · g'ᵀ h      dA = (s · g' B)ᵀ x      dx = g' W + (s · g' B) A
    dm = Σ_t g ∘ d / n

n, the norms of W + ΔW, are constants. With dropout the scaled part sees another input x̃ than the
base: y = x Wᵀ + (ρ − 1) ∘ x̃ Wᵀ + ρ ∘ s · (x̃ Aᵀ) Bᵀ + b, as in PEFT.

ρ is near one, and moves by a hundredth of a percent a step: less than half a unit of a 16-bit
number. Were the rounded d multiplied by it, each number would round back to what it was. So in 16
bits the change

    (ρ − 1) ∘ d + s · (x̃ Aᵀ) Bᵀ

is computed in float32, where d may be rounded, and x Wᵀ is added to it before the sum is rounded:
a second product with W, which float32 does without.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

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
from etude.tuning.kernels.int8_matmul import RoundedRows


def scaled_output(
    base: LinearLike,
    rows: Tensor,
    ratio: Tensor,
    thin: tuple[Tensor, Tensor, float],
    *,
    dropped: Tensor | None = None,
    add: Tensor | None = None,
    rounded: RoundedRows | None = None,
) -> tuple[Tensor, Tensor]:
    """Return y = ρ ∘ d + b + add and d, (T, out).

    Args:
        base: the frozen layer.
        rows: (T, in).
        ratio: ρ, (out,) float32.
        thin: h, (T, r), B, (out, r), and s.
        dropped: x̃, (T, in), where the adapter's input has dropout; h is of it.
        add: (T, out), or None.
        rounded: of `rows`, if several layers share their input.
    """
    source = rows if dropped is None else dropped
    own = rounded if dropped is None else rounded_for([base], source)
    direction = base_product(base, source, with_bias=False, thin=thin, rounded=own)
    wide = direction.dtype.itemsize >= 4
    if wide and dropped is None:
        y = direction * ratio.to(direction.dtype)
        for last in (base.bias, add):
            y = y if last is None else y.add_(last)
        return y, direction
    h, B, scaling = thin
    precise = torch.promote_types(direction.dtype, torch.float32)
    change = direction.to(precise).mul_(ratio - 1)
    change.addmm_(h.to(precise), B.to(precise).T, alpha=scaling)
    y = base_product(base, rows, add, change=change.to(rows.dtype), rounded=rounded)
    return y, direction


def scaled_gradient(g: Tensor, factor: Tensor) -> Tensor:
    """Return g ∘ factor, (T, out), rounded once; `factor` is (out,) float32."""
    return (g.to(torch.promote_types(g.dtype, torch.float32)) * factor).to(g.dtype)


def magnitude_gradient(g: Tensor, direction: Tensor, norm: Tensor) -> Tensor:
    """Return Σ_t g ∘ d / n, (out,), in the dtype of n."""
    precise = torch.promote_types(g.dtype, torch.float32)
    return ((g.to(precise) * direction.to(precise)).sum(0) / norm).to(norm.dtype)


class _ScaledProduct(torch.autograd.Function):
    """Autograd function; the module docstring has the equations."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        dropped: Tensor | None,
        A: Tensor,
        B: Tensor,
        magnitude: Tensor,
        norm: Tensor,
        scaling: float,
        base: LinearLike,
    ) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        other = None if dropped is None else dropped.reshape(rows.shape)
        source = rows if other is None else other
        h = thin_input(source, A.to(x.dtype))
        ratio = magnitude / norm
        y, direction = scaled_output(base, rows, ratio, (h, B, scaling), dropped=other)
        ctx.save_for_backward(source, h, A, B, ratio, norm, direction)
        ctx.scaling, ctx.base = scaling, base
        ctx.shape, ctx.has_dropout = x.shape, dropped is not None
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride] - the decorator hides names
        ctx: Any, grad_output: Tensor
    ) -> tuple[Tensor | None, ...]:
        source, h, A, B, ratio, norm, direction = cast("tuple[Tensor, ...]", ctx.saved_tensors)
        needs_x, needs_dropped, *_ = ctx.needs_input_grad
        g = grad_output.reshape(-1, grad_output.shape[-1])
        turned = scaled_gradient(g, ratio)
        gh = thin_gradient(turned, B, ctx.scaling)
        grad_A = gradient_of_A(gh, source).to(A.dtype)
        grad_B = gradient_of_B(turned, h, ctx.scaling, B.dtype)
        grad_m = magnitude_gradient(g, direction, norm)
        grad_x = grad_dropped = None
        if ctx.has_dropout:
            if needs_dropped:
                part = scaled_gradient(g, ratio - 1)
                low = thin_output(gh, A.T, 1.0)
                grad_dropped = base_gradient(ctx.base, part, low).view(ctx.shape)
            if needs_x:
                grad_x = base_gradient(ctx.base, g).view(ctx.shape)
        elif needs_x:
            low = thin_output(gh, A.T, 1.0)
            grad_x = base_gradient(ctx.base, turned, low).view(ctx.shape)
        return grad_x, grad_dropped, grad_A, grad_B, grad_m, None, None, None


_apply = cast(
    "Callable[..., Tensor]",
    _ScaledProduct.apply,  # pyright: ignore[reportUnknownMemberType] - torch's is untyped
)


def scaled_product(
    base: LinearLike,
    x: Tensor,
    factors: tuple[Tensor, Tensor],
    magnitude: Tensor,
    norm: Tensor,
    scaling: float,
    *,
    dropped: Tensor | None = None,
) -> Tensor:
    """Return m / n ∘ x (W + s·B A)ᵀ + b, differentiable in x, `dropped`, A, B and m.

    Args:
        base: the frozen layer.
        x: (..., in), in the compute dtype.
        factors: A, (r, in), and B, (out, r), float32.
        magnitude: m, (out,) float32.
        norm: n, (out,) float32, a constant.
        scaling: s.
        dropped: the adapter's input instead of x, with dropout.
    """
    return _apply(x, dropped, *factors, magnitude, norm, scaling, base)
