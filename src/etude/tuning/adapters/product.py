"""Fused product of a linear layer and its low-rank update, as one autograd node.

    y = x Wᵀ + b + s · (x Aᵀ) Bᵀ                     (Hu et al. 2022, "LoRA", eq. 3)

    dB = s · gᵀ h        dA = (s · g B)ᵀ x        dx = g W + (s · g B) A        h = x Aᵀ

Autograd saves only x and h, of width r; a quantised W is decoded again in the backward pass. By
associativity every product of the adapter goes through r, and none has the size of W.

A and B are float32 and cast to the base's dtype for the products; their gradients are float32, so
that small optimiser steps are not lost to rounding.

In 16 bits the adapter's part is added before the sum is rounded, never to a rounded x Wᵀ: early in
training an adapter changes an output by less than half a unit in the last place, so y + Δ would
round to y. The thin product is therefore written first, and the wide one added to it in float32; a
bias or a residual is added after both. `docs/performance.md` gives the cost of the other order. In
float32 the order is PEFT's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from etude.tuning.adapters.bases import LinearLike, weight_for_product
from etude.tuning.kernels import gpu
from etude.tuning.kernels.fused import THIN_ROWS, has_kernels, thin_product
from etude.tuning.kernels.int8_matmul import RoundedRows, rounded_rows
from etude.tuning.quant.block import BlockLinear
from etude.tuning.quant.int8 import Int8Linear

_SAFE_BYTES = 4
"""Smallest element size in bytes that preserves an early adapter's change."""


def base_product(
    base: LinearLike,
    rows: Tensor,
    add: Tensor | None = None,
    *,
    with_bias: bool = True,
    thin: tuple[Tensor, Tensor, float] | None = None,
    change: Tensor | None = None,
    rounded: RoundedRows | None = None,
) -> Tensor:
    """Return rows Wᵀ + b + add + s h Bᵀ of a frozen layer, (T, out).

    Args:
        base: the layer.
        rows: (T, in).
        add: (T, out), or None.
        with_bias: False leaves b out.
        thin: h, (T, r), B, (out, r), and s; None: no adapter.
        change: s h Bᵀ or another change of the output, (T, out), instead of `thin`; overwritten.
        rounded: `rounded_for([base], rows)`, if several layers share their input.
    """
    if isinstance(base, Int8Linear) and base.computes_int8:
        low = None if thin is None else (thin[0], (thin[1] * thin[2]).to(rows.dtype))
        rounded = rounded or rounded_rows(rows)
        return base.product(rounded, add, with_bias=with_bias, thin=low, change=change)
    if isinstance(base, BlockLinear) and base.multiplies_coded(rows):
        if change is None:
            return base.coded_product(rows, add, with_bias=with_bias, low=thin)
        y = base.coded_product(rows, change, with_bias=with_bias)
        return y if add is None else y.add_(add)
    W, b = weight_for_product(base), base.bias if with_bias else None
    if _few(rows) and W.is_contiguous():
        low = None
        if thin is not None:
            h, B, scaling = thin
            up = B if scaling == 1.0 else B * scaling
            low = h, up.to(rows.dtype).T.contiguous()
        if change is None:
            return thin_product(rows, W, b, add, low)
        y = thin_product(rows, W, b, change.contiguous(), None)
        return y if add is None else y.add_(add)
    change = change if thin is None else thin_output(*thin)
    if change is not None and rows.element_size() < _SAFE_BYTES:
        y = change.addmm_(rows, W.T)
        for last in (b, add):
            y = y if last is None else y.add_(last)
        return y
    if add is None:
        y = F.linear(rows, W, b)
    else:
        y = add.addmm(rows, W.T)
        y = y if b is None else y.add_(b)
    return y if change is None else y.add_(change)


def thin_output(h: Tensor, B: Tensor, scaling: float) -> Tensor:
    """Return s · h Bᵀ, (T, out), in the dtype of h: the adapter's change."""
    if gpu.takes(h):
        return gpu.up(h, B, scaling)
    return _scaled(h, B.to(h.dtype).T, scaling)


def _scaled(left: Tensor, right: Tensor, scaling: float) -> Tensor:
    """Return scaling · left right, rounded once."""
    nothing = left.new_empty(1)  # beta = 0: not read
    return torch.addmm(nothing, left, right, beta=0, alpha=scaling)


def thin_input(x: Tensor, A: Tensor) -> Tensor:
    """Return h = x Aᵀ, (T, r), of an adapter; A has the dtype of x."""
    if gpu.takes(x):
        return gpu.down(x, A)
    fast = _few(x) and A.is_contiguous()
    return thin_product(x, A) if fast else x @ A.T


def _few(rows: Tensor) -> bool:
    """Return whether a product of `rows` is bound by reading its weight, as in generation."""
    return torch.is_inference_mode_enabled() and len(rows) <= THIN_ROWS and has_kernels(rows)


def rounded_for(bases: Iterable[LinearLike], rows: Tensor) -> RoundedRows | None:
    """Return `rows` in 8 bits, if a layer in `bases` uses integer products."""
    wanted = any(isinstance(base, Int8Linear) and base.computes_int8 for base in bases)
    return rounded_rows(rows) if wanted else None


def base_gradient(base: LinearLike, g: Tensor, add: Tensor | None = None) -> Tensor:
    """Return g W + add, (T, in), the gradient of the layer's input; overwrites `add`."""
    if isinstance(base, Int8Linear) and base.computes_int8:
        return base.input_gradient(g, add)
    if isinstance(base, BlockLinear) and base.multiplies_coded(g):
        return base.coded_gradient(g, add)
    W = weight_for_product(base)
    return g @ W if add is None else add.addmm_(g, W)


def thin_gradient(g: Tensor, B: Tensor, scaling: float) -> Tensor:
    """Return s · g B, (T, r), the gradient of h, given that of the output."""
    if gpu.takes(g):
        return gpu.down(g, B.T, scaling)
    return _scaled(g, B.to(g.dtype), scaling)


def gradient_of_A(gh: Tensor, x: Tensor) -> Tensor:  # noqa: N802 - the papers' name
    """Return ghᵀ x, (r, in), in float32 where that is free."""
    return gpu.across(gh, x) if gpu.takes(x) else gh.T @ x


def gradient_of_B(  # noqa: N802 - the papers' name
    g: Tensor, h: Tensor, scaling: float, dtype: torch.dtype
) -> Tensor:
    """Return s · gᵀ h, (out, r), in `dtype`."""
    if gpu.takes(g):
        return gpu.across(h, g, scaling).T.to(dtype, memory_format=torch.contiguous_format)
    return (g.T @ h).to(dtype).mul_(scaling)


class _AdaptedProduct(torch.autograd.Function):
    """Autograd function of base and adapter; the module docstring has the equations.

    With dropout, the adapter's input is a different tensor from the base's, with its own gradient,
    and autograd continues through the dropout.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        dropped: Tensor | None,
        A: Tensor,
        B: Tensor,
        scaling: float,
        base: LinearLike,
        with_bias: bool,
    ) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        source = rows if dropped is None else dropped.reshape(rows.shape)
        h = thin_input(source, A.to(x.dtype))
        y = base_product(base, rows, with_bias=with_bias, thin=(h, B, scaling))
        # W needs no gradient, so the base's own input is not saved.
        ctx.save_for_backward(source, h, A, B)
        ctx.scaling, ctx.base = scaling, base
        ctx.shape, ctx.has_dropout = x.shape, dropped is not None
        # A view made here could not be changed in place, as Falcon does: `adapted_product` has it.
        return y

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride] - the decorator hides names
        ctx: Any, grad_output: Tensor
    ) -> tuple[Tensor | None, ...]:
        source, h, A, B = cast("tuple[Tensor, ...]", ctx.saved_tensors)
        needs_x, needs_dropped, needs_A, needs_B, *_ = ctx.needs_input_grad
        g = grad_output.reshape(-1, grad_output.shape[-1])
        gh = thin_gradient(g, B, ctx.scaling)

        grad_B = gradient_of_B(g, h, ctx.scaling, B.dtype) if needs_B else None
        grad_A = gradient_of_A(gh, source).to(A.dtype) if needs_A else None
        of_adapter = None
        if needs_dropped or (needs_x and not ctx.has_dropout):
            of_adapter = thin_output(gh, A.T, 1.0)
        grad_x = grad_dropped = None
        if ctx.has_dropout and of_adapter is not None:
            grad_dropped, of_adapter = of_adapter.view(ctx.shape), None
        if needs_x:
            grad_x = base_gradient(ctx.base, g, of_adapter).view(ctx.shape)
        return grad_x, grad_dropped, grad_A, grad_B, None, None, None


_apply = cast(
    "Callable[..., Tensor]",
    _AdaptedProduct.apply,  # pyright: ignore[reportUnknownMemberType] - torch's is untyped
)


def adapted_product(
    base: LinearLike,
    x: Tensor,
    A: Tensor,
    B: Tensor,
    scaling: float,
    *,
    dropped: Tensor | None = None,
    with_bias: bool = True,
) -> Tensor:
    """Return x (W + s·B A)ᵀ + b, differentiable in x, `dropped`, A and B.

    Args:
        base: the frozen layer.
        x: (..., in), in the compute dtype.
        A: (r, in), float32.
        B: (out, r), float32.
        scaling: s.
        dropped: the adapter's input instead of x, with dropout.
        with_bias: False leaves b out.
    """
    y = _apply(x, dropped, A, B, scaling, base, with_bias)
    return y.view(*x.shape[:-1], -1)
