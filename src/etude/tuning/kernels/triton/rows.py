# pyright: basic
"""What lies between a decoder layer's products, each one pass over memory, sums in float32.

    y  = w ∘ x r,   r = (mean x² + ε)^−½                      rows (T, H)
    dx = r (w ∘ g − x r² mean(w ∘ g ∘ x)) + residual          w is frozen

    x[i] ← x[i] c[i] − x[i + d/2] s[i],   x[i + d/2] ← x[i + d/2] c[i + d/2] + x[i] s[i + d/2]
                                                              rows (T, heads · d), in place
    a  = silu(g) ∘ u      σ = 1 / (1 + e^−g)
    du = da ∘ g σ,   dg = da ∘ u ∘ σ (1 + g (1 − σ))          in place of u and g

A row of the norm is one program, and stays in its registers.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from etude.tuning.kernels.triton.arithmetic import rounded
from etude.tuning.kernels.triton.launching import launch, power, refuse_unfit

_ELEMENTS = 1024
"""Numbers a program of SwiGLU, 8 for each of 128 threads."""

_TURNED = 1024
"""Pairs a program of the rotation, about."""


@triton.jit
def _rms_norm(y, rstd, x, weight, width, eps, SIZE: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    place = tl.arange(0, SIZE)
    inside = place < width
    value = tl.load(x + row * width + place, mask=inside, other=0.0).to(tl.float32)
    r = 1 / tl.sqrt_rn(tl.sum(value * value, 0) / width + eps)
    w = tl.load(weight + place, mask=inside, other=0.0).to(tl.float32)
    tl.store(y + row * width + place, rounded(value * r * w, y.dtype.element_ty), mask=inside)
    tl.store(rstd + row, r)


@triton.jit
def _rms_norm_backward(
    dx, gradient, x, weight, rstd, residual, width, ADD: tl.constexpr, SIZE: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    place = tl.arange(0, SIZE)
    inside = place < width
    at = row * width + place
    value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    wg = tl.load(gradient + at, mask=inside, other=0.0).to(tl.float32)
    wg *= tl.load(weight + place, mask=inside, other=0.0).to(tl.float32)
    r = tl.load(rstd + row)
    common = tl.sum(wg * value, 0) / width * r * r
    result = r * (wg - value * common)
    if ADD:
        result += tl.load(residual + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(dx + at, rounded(result, dx.dtype.element_ty), mask=inside)


@triton.jit
def _rotate(
    x,
    step,
    cosine,
    sine,
    heads,
    HALF: tl.constexpr,
    BACKWARDS: tl.constexpr,
    SIZE: tl.constexpr,
    HEADS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    head = (tl.program_id(1) * HEADS + tl.arange(0, HEADS))[:, None]
    pair = tl.arange(0, SIZE)[None, :]
    known = pair < HALF
    inside = known & (head < heads)
    angle = row * (2 * HALF) + pair
    c1 = tl.load(cosine + angle, mask=known, other=0.0)
    c2 = tl.load(cosine + angle + HALF, mask=known, other=0.0)
    s1 = tl.load(sine + angle, mask=known, other=0.0)
    s2 = tl.load(sine + angle + HALF, mask=known, other=0.0)
    if BACKWARDS:  # the transposed: sines change their sign and their halves
        s1, s2 = -s2, -s1
    first = x + row * step + head * (2 * HALF) + pair
    a = tl.load(first, mask=inside, other=0.0).to(tl.float32)
    b = tl.load(first + HALF, mask=inside, other=0.0).to(tl.float32)
    tl.store(first, rounded(a * c1 - b * s1, x.dtype.element_ty), mask=inside)
    tl.store(first + HALF, rounded(b * c2 + a * s2, x.dtype.element_ty), mask=inside)


@triton.jit
def _swiglu(y, gate, up, count, SIZE: tl.constexpr):
    place = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)
    inside = place < count
    g = tl.load(gate + place, mask=inside, other=0.0).to(tl.float32)
    u = tl.load(up + place, mask=inside, other=0.0).to(tl.float32)
    tl.store(y + place, rounded(g / (1 + tl.exp(-g)) * u, y.dtype.element_ty), mask=inside)


@triton.jit
def _swiglu_backward(y, gradient, gate, up, count, SIZE: tl.constexpr):
    place = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)
    inside = place < count
    da = tl.load(gradient + place, mask=inside, other=0.0).to(tl.float32)
    g = tl.load(gate + place, mask=inside, other=0.0).to(tl.float32)
    u = tl.load(up + place, mask=inside, other=0.0).to(tl.float32)
    sigma = 1 / (1 + tl.exp(-g))
    silu = g / (1 + tl.exp(-g))
    dtype = y.dtype.element_ty
    tl.store(y + place, rounded(silu * u, dtype), mask=inside)
    tl.store(up + place, rounded(da * silu, dtype), mask=inside)
    dg = da * u * (sigma + silu * (1 - sigma))
    tl.store(gate + place, rounded(dg, dtype), mask=inside)


def _norm_warps(size: int) -> int:
    """Return the warps of a row: 16 numbers a thread, 4 to 16 warps."""
    return min(16, max(4, size // 512))


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Return weight ∘ x / rms(x), (T, H), and 1 / rms(x), (T,) float32.

    Raises:
        TypeError, ValueError: a dtype without kernel; a tensor that is not contiguous.
    """
    refuse_unfit(x=x, weight=weight)
    rows, width = x.shape
    y = torch.empty_like(x)
    rstd = torch.empty(rows, dtype=torch.float32, device=x.device)
    size = power(width)
    warps = _norm_warps(size)
    launch(_rms_norm, (rows,), y, rstd, x, weight, width, eps, SIZE=size, num_warps=warps)
    return y, rstd


def rms_norm_backward(
    gradient: Tensor, x: Tensor, weight: Tensor, rstd: Tensor, residual: Tensor | None
) -> Tensor:
    """Return the gradient to x, (T, H), plus `residual`; see `rms_norm`."""
    add = gradient if residual is None else residual
    refuse_unfit(x=x, gradient=gradient, weight=weight, rstd=rstd, residual=add)
    rows, width = x.shape
    dx = torch.empty_like(x)
    size = power(width)
    launch(
        _rms_norm_backward, (rows,), dx, gradient, x, weight, rstd, add, width,
        ADD=residual is not None, SIZE=size, num_warps=_norm_warps(size),
    )  # fmt: skip
    return dx


def rotate(
    x: Tensor, cosine: Tensor, sine: Tensor, heads: int, *, backwards: bool = False
) -> Tensor:
    """Turn each head of x, (T, heads · width), in place; return x. See `fused.rotate`.

    Raises:
        ValueError: heads do not divide the row into even widths, numbers of a row lie apart, or
            angles are not float32 (T, width), contiguous.
    """
    rows, total = x.shape
    width, rest = divmod(total, heads)
    if rest or width % 2:
        raise ValueError(f"{total} numbers are not {heads} heads of an even width")
    if x.stride(1) != 1 and total > 1:
        raise ValueError("numbers of a row must lie side by side")
    for angle in (cosine, sine):
        if angle.shape != (rows, width) or angle.dtype != torch.float32:
            raise ValueError(f"angles must be float32 {(rows, width)}")
        refuse_unfit(angle=angle)
    half = width // 2
    size = power(half)
    at_once = max(1, min(power(heads), _TURNED // size))
    launch(
        _rotate, (rows, triton.cdiv(heads, at_once)), x, x.stride(0), cosine, sine, heads,
        HALF=half, BACKWARDS=backwards, SIZE=size, HEADS=at_once,
    )  # fmt: skip
    return x


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """Return silu(gate) ∘ up, of their shape; both contiguous and of one dtype."""
    refuse_unfit(gate=gate, up=up)
    y = torch.empty_like(gate)
    count = gate.numel()
    launch(_swiglu, (triton.cdiv(count, _ELEMENTS),), y, gate, up, count, SIZE=_ELEMENTS)
    return y


def swiglu_backward(gradient: Tensor, gate: Tensor, up: Tensor) -> Tensor:
    """Turn `gate` and `up` into their gradients, in place; return silu(gate) ∘ up anew."""
    refuse_unfit(gate=gate, up=up, gradient=gradient)
    y = torch.empty_like(gate)
    count = gate.numel()
    launch(
        _swiglu_backward, (triton.cdiv(count, _ELEMENTS),), y, gradient, gate, up, count,
        SIZE=_ELEMENTS,
    )  # fmt: skip
    return y
