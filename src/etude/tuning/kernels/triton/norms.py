# pyright: basic
"""What lies between an encoder layer's products, each one pass over memory, sums in float32.

    s  = x + M ∘ y,   z = w ∘ n + b,   n = (s − mean) r,   r = (variance + ε)^−½
    ds = r (w ∘ g − mean(w ∘ g) − n mean(w ∘ g ∘ n)),   dy = M ∘ ds       w and b are frozen

    a  = g Φ(g)      dg = da ∘ (Φ(g) + g φ(g)), in place of g

M is dropout, from a seed, a row and a column (`kernels.dropout`). A row is one program, and stays
in its registers.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from etude.tuning.kernels.dropout import Dropout
from etude.tuning.kernels.triton.arithmetic import rounded
from etude.tuning.kernels.triton.launching import launch, power, refuse_unfit

_ELEMENTS = 1024
"""Numbers a program of GELU, 8 for each of 128 threads."""


@triton.jit
def _mixed(x):
    x = x ^ (x >> 16)
    x = x * 0x7FEB352D
    x = x ^ (x >> 15)
    x = x * 0x846CA68B
    return x ^ (x >> 16)


@triton.jit
def _factors(low, high, threshold, factor, row, column):
    """Return what each column of a row is multiplied with; see `kernels.dropout`."""
    key = _mixed(tl.cast(low, tl.uint32) ^ row.to(tl.uint32))
    key = _mixed(key + tl.cast(high, tl.uint32))
    drawn = _mixed(column.to(tl.uint32) * 0x9E3779B9 + key)
    return tl.where(drawn >= tl.cast(threshold, tl.uint32), factor, 0.0)


@triton.jit
def _add_norm(
    z, mean, rstd, y, x, weight, bias, width, eps, low, high, threshold, factor,
    DROP: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    place = tl.arange(0, SIZE)
    inside = place < width
    at = row * width + place
    value = tl.load(y + at, mask=inside, other=0.0).to(tl.float32)
    if DROP:
        value *= _factors(low, high, threshold, factor, row, place)
    value += tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    kept = rounded(value, y.dtype.element_ty)
    tl.store(y + at, kept, mask=inside)
    s = kept.to(tl.float32)
    middle = tl.sum(s, 0) / width
    around = tl.where(inside, s - middle, 0.0)
    r = 1 / tl.sqrt_rn(tl.sum(around * around, 0) / width + eps)
    w = tl.load(weight + place, mask=inside, other=0.0).to(tl.float32)
    b = tl.load(bias + place, mask=inside, other=0.0).to(tl.float32)
    tl.store(z + at, rounded(around * r * w + b, z.dtype.element_ty), mask=inside)
    tl.store(mean + row, middle)
    tl.store(rstd + row, r)


@triton.jit
def _layer_norm(z, s, weight, bias, mean, rstd, width, SIZE: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    place = tl.arange(0, SIZE)
    inside = place < width
    at = row * width + place
    around = tl.load(s + at, mask=inside, other=0.0).to(tl.float32) - tl.load(mean + row)
    w = tl.load(weight + place, mask=inside, other=0.0).to(tl.float32)
    b = tl.load(bias + place, mask=inside, other=0.0).to(tl.float32)
    value = around * tl.load(rstd + row) * w + b
    tl.store(z + at, rounded(value, z.dtype.element_ty), mask=inside)


@triton.jit
def _add_norm_backward(
    ds, dy, gradient, also, s, weight, mean, rstd, width, low, high, threshold, factor,
    ADD: tl.constexpr, DROP: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    place = tl.arange(0, SIZE)
    inside = place < width
    at = row * width + place
    g = tl.load(gradient + at, mask=inside, other=0.0).to(tl.float32)
    if ADD:
        g += tl.load(also + at, mask=inside, other=0.0).to(tl.float32)
    wg = g * tl.load(weight + place, mask=inside, other=0.0).to(tl.float32)
    r = tl.load(rstd + row)
    n = (tl.load(s + at, mask=inside, other=0.0).to(tl.float32) - tl.load(mean + row)) * r
    n = tl.where(inside, n, 0.0)
    d = r * (wg - tl.sum(wg, 0) / width - n * (tl.sum(wg * n, 0) / width))
    tl.store(ds + at, rounded(d, ds.dtype.element_ty), mask=inside)
    if DROP:
        dropped = d * _factors(low, high, threshold, factor, row, place)
        tl.store(dy + at, rounded(dropped, dy.dtype.element_ty), mask=inside)


@triton.jit
def _gelu(y, g, count, SIZE: tl.constexpr):
    place = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)
    inside = place < count
    x = tl.load(g + place, mask=inside, other=0.0).to(tl.float32)
    share = 0.5 + 0.5 * tl.math.erf(x * 0.70710678118654752)
    tl.store(y + place, rounded(x * share, y.dtype.element_ty), mask=inside)


@triton.jit
def _gelu_backward(y, gradient, g, count, SIZE: tl.constexpr):
    place = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)
    inside = place < count
    x = tl.load(g + place, mask=inside, other=0.0).to(tl.float32)
    da = tl.load(gradient + place, mask=inside, other=0.0).to(tl.float32)
    share = 0.5 + 0.5 * tl.math.erf(x * 0.70710678118654752)
    density = 0.3989422804014327 * tl.exp(-0.5 * x * x)
    dtype = y.dtype.element_ty
    tl.store(y + place, rounded(x * share, dtype), mask=inside)
    tl.store(g + place, rounded(da * (share + x * density), dtype), mask=inside)


def _warps(size: int) -> int:
    """Return the warps of a row: 16 numbers a thread, 4 to 16 warps."""
    return min(16, max(4, size // 512))


def _drawn(dropout: Dropout) -> tuple[int, int, int, float]:
    """Return the seed's halves and the threshold, as signed 32 bits, and the factor."""
    parts = dropout.seed & 0xFFFFFFFF, dropout.seed >> 32, dropout.threshold
    low, high, threshold = (part - 2**32 if part >= 2**31 else part for part in parts)
    return low, high, threshold, float(dropout.factor)


def add_norm(
    y: Tensor, x: Tensor, weight: Tensor, bias: Tensor, eps: float, dropout: Dropout
) -> tuple[Tensor, Tensor, Tensor]:
    """Turn y into x + dropout(y), in place; return its norm, means and 1 / deviations.

    Raises:
        TypeError, ValueError: a dtype without kernel; a tensor that is not contiguous.
    """
    refuse_unfit(y=y, x=x, weight=weight, bias=bias)
    count, width = y.shape
    z = torch.empty_like(y)
    mean, rstd = (torch.empty(count, dtype=torch.float32, device=y.device) for _ in range(2))
    size = power(width)
    launch(
        _add_norm, (count,), z, mean, rstd, y, x, weight, bias, width, eps, *_drawn(dropout),
        DROP=dropout.on, SIZE=size, num_warps=_warps(size),
    )  # fmt: skip
    return z, mean, rstd


def layer_norm(s: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, rstd: Tensor) -> Tensor:
    """Return what `add_norm` did, from s and its rows' means and deviations."""
    refuse_unfit(s=s, weight=weight, bias=bias, mean=mean, rstd=rstd)
    count, width = s.shape
    z, size = torch.empty_like(s), power(width)
    launch(
        _layer_norm, (count,), z, s, weight, bias, mean, rstd, width,
        SIZE=size, num_warps=_warps(size),
    )  # fmt: skip
    return z


def add_norm_backward(
    gradient: Tensor,
    also: Tensor | None,
    s: Tensor,
    weight: Tensor,
    mean: Tensor,
    rstd: Tensor,
    dropout: Dropout,
) -> tuple[Tensor, Tensor]:
    """Return the gradients to x and y of `add_norm`; without dropout they are one tensor."""
    more = gradient if also is None else also
    refuse_unfit(s=s, gradient=gradient, also=more, weight=weight, mean=mean, rstd=rstd)
    count, width = s.shape
    ds = torch.empty_like(s)
    dy = torch.empty_like(s) if dropout.on else ds
    size = power(width)
    launch(
        _add_norm_backward, (count,), ds, dy, gradient, more, s, weight, mean, rstd, width,
        *_drawn(dropout), ADD=also is not None, DROP=dropout.on, SIZE=size, num_warps=_warps(size),
    )  # fmt: skip
    return ds, dy


def gelu(g: Tensor) -> Tensor:
    """Return g Φ(g)."""
    refuse_unfit(g=g)
    y, count = torch.empty_like(g), g.numel()
    launch(_gelu, (triton.cdiv(count, _ELEMENTS),), y, g, count, SIZE=_ELEMENTS)
    return y


def gelu_backward(gradient: Tensor, g: Tensor) -> Tensor:
    """Turn g into its gradient, in place; return g Φ(g) anew."""
    refuse_unfit(g=g, gradient=gradient)
    y, count = torch.empty_like(g), g.numel()
    launch(_gelu_backward, (triton.cdiv(count, _ELEMENTS),), y, gradient, g, count, SIZE=_ELEMENTS)
    return y
