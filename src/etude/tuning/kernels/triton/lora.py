# pyright: basic
"""What an adapter adds, and its gradients: products with one thin side, r numbers wide.

    h  = s · x Aᵀ            (T, in), (r, in) → (T, r)      also s · g B, the gradient to h
    Δ  = s · h Bᵀ            (T, r), (out, r) → (T, out)    also gh A, of dx
    G  = s · pᵀ x            (T, r), (T, in) → (r, in)      dA of gh and x, dBᵀ of h and g

Each reads what is wide once, and is as fast as that is read. Factors are float32 and rounded to the
dtype of the rows on their way into the product, so that no rounded copy of them is made; the
scale acts on the float32 sum, and gradients of factors are never rounded. The third sums
over tokens, which would leave most of a GPU idle: spans of tokens are summed apart, and their
sums added in an order that is always the same.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from etude.tuning.kernels.triton.arithmetic import multiplied, rounded
from etude.tuning.kernels.triton.launching import DTYPES, launch, power

_RANK = 64
"""The widest tile of r; larger ranks take several."""

_SPANS = 8
"""Of tokens, in the sum over tokens: 8 times the programs."""


@triton.jit
def _down(
    h, x, A, rows, width, rank, scale, x_step, a_step, a_next,
    ROWS: tl.constexpr, WIDTH: tl.constexpr, RANK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    r = tl.program_id(1) * RANK + tl.arange(0, RANK)[None, :]
    sums = tl.zeros((ROWS, RANK), tl.float32)
    for first in range(0, width, WIDTH):
        across = first + tl.arange(0, WIDTH)
        wide = tl.load(
            x + row * x_step + across[None, :],
            mask=(row < rows) & (across[None, :] < width),
            other=0.0,
        )
        thin = tl.load(
            A + r * a_step + across[:, None].to(tl.int64) * a_next,
            mask=(r < rank) & (across[:, None] < width),
            other=0.0,
        )
        sums = multiplied(wide, rounded(thin.to(tl.float32), x.dtype.element_ty), sums)
    value = rounded(sums * scale, h.dtype.element_ty)
    tl.store(h + row * rank + r, value, mask=(row < rows) & (r < rank))


@triton.jit
def _up(
    y, h, B, rows, width, rank, scale, y_step, h_step, b_step, b_next,
    ROWS: tl.constexpr, WIDTH: tl.constexpr, RANK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    across = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)[None, :].to(tl.int64)
    sums = tl.zeros((ROWS, WIDTH), tl.float32)
    for first in range(0, rank, RANK):
        r = first + tl.arange(0, RANK)
        thin = tl.load(
            h + row * h_step + r[None, :], mask=(row < rows) & (r[None, :] < rank), other=0.0
        )
        factor = tl.load(
            B + across * b_step + r[:, None] * b_next,
            mask=(across < width) & (r[:, None] < rank),
            other=0.0,
        )
        sums = multiplied(thin, rounded(factor.to(tl.float32), h.dtype.element_ty), sums)
    at = y + row * y_step + across
    inside = (row < rows) & (across < width)
    tl.store(at, rounded(sums * scale, y.dtype.element_ty), mask=inside)


@triton.jit
def _across(
    out, thin, wide, rows, width, rank, span, scale, thin_step, wide_step,
    ROWS: tl.constexpr, WIDTH: tl.constexpr, RANK: tl.constexpr,
):  # fmt: skip
    across = tl.program_id(0) * WIDTH + tl.arange(0, WIDTH)[None, :]
    r = tl.program_id(1) * RANK + tl.arange(0, RANK)[:, None]
    part = tl.program_id(2).to(tl.int64)
    last = tl.minimum(rows, (part + 1) * span)
    sums = tl.zeros((RANK, WIDTH), tl.float32)
    for first in range(part * span, last, ROWS):
        row = first + tl.arange(0, ROWS)
        left = tl.load(
            thin + row[None, :] * thin_step + r, mask=(row[None, :] < last) & (r < rank), other=0.0
        )
        right = tl.load(
            wide + row[:, None] * wide_step + across,
            mask=(row[:, None] < last) & (across < width),
            other=0.0,
        )
        sums = multiplied(left, right, sums)
    at = out + part * rank * width + r.to(tl.int64) * width + across
    tl.store(at, sums * scale, mask=(r < rank) & (across < width))


def _rank_tile(rank: int) -> int:
    return min(_RANK, power(rank, 16))


def _refuse_rows(*tensors: Tensor) -> None:
    """Refuse rows whose numbers do not lie side by side, or of several dtypes."""
    for rows in tensors:
        if rows.dtype not in DTYPES or rows.dtype != tensors[0].dtype:
            raise TypeError("rows must be of one dtype: float32, bfloat16 or float16")
        if rows.stride(1) != 1 and rows.shape[1] > 1:
            raise ValueError("numbers of a row must lie side by side")


def down(x: Tensor, A: Tensor, scale: float = 1.0) -> Tensor:
    """Return scale · x Aᵀ, (T, r), in the dtype of x.

    Args:
        x: (T, in), each row contiguous.
        A: (r, in), of any floating dtype and any strides: of g B it is Bᵀ.
        scale: factor on the float32 sums.

    Raises:
        TypeError, ValueError: x has a dtype without kernel, or numbers of its rows lie apart.
    """
    _refuse_rows(x)
    (rows, width), rank = x.shape, len(A)
    h = torch.empty(rows, rank, dtype=x.dtype, device=x.device)
    tile, ranks = 32, _rank_tile(rank)
    launch(
        _down, (triton.cdiv(rows, tile), triton.cdiv(rank, ranks)), h, x, A, rows, width, rank,
        scale, x.stride(0), A.stride(0), A.stride(1), ROWS=tile, WIDTH=128, RANK=ranks,
        num_warps=4, num_stages=3,
    )  # fmt: skip
    return h


def up(h: Tensor, B: Tensor, scale: float = 1.0) -> Tensor:
    """Return scale · h Bᵀ, (T, out), in the dtype of h.

    Args:
        h: (T, r), each row contiguous.
        B: (out, r), of any floating dtype and any strides: of gh A it is Aᵀ.
        scale: factor on the float32 sums.

    Raises:
        TypeError, ValueError: as `down`.
    """
    _refuse_rows(h)
    (rows, rank), width = h.shape, len(B)
    y = torch.empty(rows, width, dtype=h.dtype, device=h.device)
    launch(
        _up, (triton.cdiv(rows, 64), triton.cdiv(width, 128)), y, h, B, rows, width, rank, scale,
        y.stride(0), h.stride(0), B.stride(0), B.stride(1), ROWS=64, WIDTH=128,
        RANK=_rank_tile(rank), num_warps=4, num_stages=2,
    )  # fmt: skip
    return y


def across(thin: Tensor, wide: Tensor, scale: float = 1.0) -> Tensor:
    """Return scale · thinᵀ wide, (r, in) float32, summed over tokens in an order that is fixed.

    Args:
        thin: (T, r), each row contiguous.
        wide: (T, in), likewise, in the dtype of `thin`.
        scale: factor on the float32 sums.

    Raises:
        TypeError, ValueError: as `down`.
    """
    _refuse_rows(wide, thin)
    (rows, width), rank = wide.shape, thin.shape[1]
    if rows == 0:
        return torch.zeros(rank, width, device=wide.device)
    ranks, tile = _rank_tile(rank), 64
    # Whole tiles a span; few tokens have fewer spans.
    span = triton.cdiv(triton.cdiv(rows, _SPANS), tile) * tile
    spans = triton.cdiv(rows, span)
    out = torch.empty(spans, rank, width, dtype=torch.float32, device=wide.device)
    launch(
        _across, (triton.cdiv(width, 128), triton.cdiv(rank, ranks), spans), out, thin, wide, rows,
        width, rank, span, scale, thin.stride(0), wide.stride(0), ROWS=tile, WIDTH=128, RANK=ranks,
        num_warps=4, num_stages=3,
    )  # fmt: skip
    return out.sum(0)
