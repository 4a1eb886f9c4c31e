# pyright: basic
"""Products with 4-bit weights that are decoded tile by tile and never written.

    y  = x Ŵᵀ + b + add + s · h Bᵀ       x (T, in), h (T, r), y (T, out)
    dx = g Ŵ + add                       g (T, out), dx (T, in)

Ŵ (out, in) is codes, row after row, and scales, see `decode`. A program reads the codes of a tile
of Ŵ, has its numbers in registers, rounded to the dtype of x as `decode` rounds them, and
multiplies: what memory gives is half a byte a weight instead of the 4.5 of decoding first and
reading again. The price is that each tile of rows decodes all of Ŵ: `FEW_ROWS`.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from etude.tuning.kernels.codebooks import DYNAMIC_BLOCK
from etude.tuning.kernels.triton.arithmetic import multiplied, rounded
from etude.tuning.kernels.triton.decode import levels_on, scale_of
from etude.tuning.kernels.triton.launching import DTYPES, launch, power

FEW_ROWS = 64
"""Rows up to which a product costs the reading of its weight: one tile, so that every weight is
decoded once. With more, decoding once into a buffer and PyTorch's own product win: they add 4
bytes of traffic a weight, about a picosecond on an H200, whatever the rows, while at 4,096 rows
the product itself takes ten, and decoding again for each tile of rows would cost every tile
more than that."""


@triton.jit
def _tile(
    codes, absmax, scales, offset, levels, dynamic, n, pair, out, into, dtype: tl.constexpr,
    BLOCK: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """Return Ŵ of rows n (N, 1) and bytes `pair` (1, K / 2) of each, (N, K)."""
    byte = n.to(tl.int64) * (into // 2) + pair
    inside = (n < out) & (pair < into // 2)
    code = tl.load(codes + byte, mask=inside, other=0).to(tl.int32)
    scale = scale_of(byte // (BLOCK // 2), absmax, scales, offset, dynamic, inside, GROUP)
    # Outside scales are 0, or the offset; what they multiply there is not 0, so it is masked.
    high = tl.where(inside, tl.load(levels + (code >> 4)) * scale, 0.0)
    low = tl.where(inside, tl.load(levels + (code & 15)) * scale, 0.0)
    return rounded(tl.interleave(high, low), dtype)


@triton.jit
def _product(
    y, x, add, bias, h, B, codes, absmax, scales, offset, levels, dynamic,
    rows, out, into, rank, low_scale, x_step, h_step, b_step, b_next,
    ADD: tl.constexpr, BIAS: tl.constexpr, BLOCK: tl.constexpr, GROUP: tl.constexpr,
    ROWS: tl.constexpr, OUT: tl.constexpr, INTO: tl.constexpr, RANK: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0) * OUT + tl.arange(0, OUT)
    row = tl.program_id(1).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    dtype = x.dtype.element_ty
    sums = tl.zeros((ROWS, OUT), tl.float32)
    for first in range(0, into, INTO):
        k = first + tl.arange(0, INTO)[None, :]
        pair = first // 2 + tl.arange(0, INTO // 2)[None, :]
        left = tl.load(x + row * x_step + k, mask=(row < rows) & (k < into), other=0.0)
        W = _tile(
            codes, absmax, scales, offset, levels, dynamic, n[:, None], pair, out, into, dtype,
            BLOCK, GROUP,
        )  # fmt: skip
        sums = multiplied(left, tl.trans(W), sums)
    across = n[None, :]
    inside = (row < rows) & (across < out)
    if RANK > 0:
        low = tl.zeros((ROWS, OUT), tl.float32)
        for first in range(0, rank, RANK):
            r = first + tl.arange(0, RANK)
            thin = tl.load(
                h + row * h_step + r[None, :], mask=(row < rows) & (r[None, :] < rank), other=0.0
            )
            factor = tl.load(
                B + across.to(tl.int64) * b_step + r[:, None] * b_next,
                mask=(across < out) & (r[:, None] < rank),
                other=0.0,
            )
            low = multiplied(thin, rounded(factor.to(tl.float32), dtype), low)
        sums += low * low_scale
    at = row * out + across
    if BIAS:
        sums += tl.load(bias + across, mask=across < out, other=0.0).to(tl.float32)
    if ADD:
        sums += tl.load(add + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(y + at, rounded(sums, dtype), mask=inside)


@triton.jit
def _gradient(
    dx, g, add, codes, absmax, scales, offset, levels, dynamic, rows, out, into, g_step,
    ADD: tl.constexpr, BLOCK: tl.constexpr, GROUP: tl.constexpr,
    ROWS: tl.constexpr, OUT: tl.constexpr, INTO: tl.constexpr,
):  # fmt: skip
    k = tl.program_id(0) * INTO + tl.arange(0, INTO)[None, :]
    pair = tl.program_id(0) * (INTO // 2) + tl.arange(0, INTO // 2)[None, :]
    row = tl.program_id(1).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    dtype = g.dtype.element_ty
    sums = tl.zeros((ROWS, INTO), tl.float32)
    for first in range(0, out, OUT):
        n = first + tl.arange(0, OUT)
        left = tl.load(
            g + row * g_step + n[None, :], mask=(row < rows) & (n[None, :] < out), other=0.0
        )
        W = _tile(
            codes, absmax, scales, offset, levels, dynamic, n[:, None], pair, out, into, dtype,
            BLOCK, GROUP,
        )  # fmt: skip
        sums = multiplied(left, W, sums)
    at = row * into + k
    inside = (row < rows) & (k < into)
    if ADD:
        sums += tl.load(add + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(dx + at, rounded(sums, dtype), mask=inside)


Coded = tuple[Tensor, Tensor, tuple[Tensor, Tensor] | None, tuple[int, int], int, str]
"""codes, absmax (with double quantisation its codes), scales and offset of those, shape (out, in),
block and kind; see `decode.dequantize_4bit`."""


def can_multiply(rows: Tensor, shape: tuple[int, int]) -> bool:
    """Return whether there is a kernel: two weights of a byte must be of one row."""
    return rows.dtype in DTYPES and shape[1] % 2 == 0


def _tables(weight: Coded) -> tuple[Tensor, ...]:
    codes, absmax, double, _, _, kind = weight
    scales, offset = double or (absmax, absmax)
    tables = levels_on(kind, codes.device), levels_on("dynamic", codes.device)
    return codes, absmax, scales, offset, *tables


def _refuse(rows: Tensor, width: int, shape: tuple[int, int], *others: Tensor | None) -> None:
    if rows.dtype not in DTYPES:
        raise TypeError(f"there is no kernel for rows of {rows.dtype}")
    if shape[1] % 2:
        raise ValueError("a weight of an odd width has bytes of two rows")
    if rows.shape[1] != width:
        raise ValueError(f"rows of {rows.shape[1]} do not fit a weight of {width}")
    if rows.stride(1) != 1 and width > 1:
        raise ValueError("numbers of a row must lie side by side")
    if any(other is not None and not other.is_contiguous() for other in others):
        raise ValueError("what is added must be contiguous")


def coded_product(
    x: Tensor,
    weight: Coded,
    bias: Tensor | None = None,
    add: Tensor | None = None,
    low: tuple[Tensor, Tensor, float] | None = None,
) -> Tensor:
    """Return x Ŵᵀ + bias + add + s · h Bᵀ, (T, out), in the dtype of x.

    Args:
        x: (T, in), each row contiguous; `in` is even.
        weight: see `Coded`.
        bias: (out,), or None.
        add: (T, out), contiguous, or None.
        low: h, (T, r) in the dtype of x, B, (out, r), and s; or None.

    Raises:
        TypeError, ValueError: a dtype or a layout without kernel, or an odd `in`.
    """
    out, into = weight[3]
    _refuse(x, into, weight[3], bias, add)
    count = len(x)
    y = torch.empty(count, out, dtype=x.dtype, device=x.device)
    tile = min(64, power(count, 16))
    h, B, scale = low or (x, x, 1.0)
    rank = 0 if low is None else h.shape[1]
    launch(
        _product, (triton.cdiv(out, 32), triton.cdiv(count, tile)), y, x,
        x if add is None else add, x if bias is None else bias, h, B, *_tables(weight),
        count, out, into, rank, scale, x.stride(0), h.stride(0), B.stride(0), B.stride(1),
        ADD=add is not None, BIAS=bias is not None, BLOCK=weight[4],
        GROUP=DYNAMIC_BLOCK if weight[2] else 0, ROWS=tile, OUT=32, INTO=128,
        RANK=min(64, power(rank, 16)) if rank else 0,
        num_warps=4, num_stages=3, enable_fp_fusion=False,
    )  # fmt: skip
    return y


def coded_gradient(g: Tensor, weight: Coded, add: Tensor | None = None) -> Tensor:
    """Return g Ŵ + add, (T, in), in the dtype of g; see `coded_product`."""
    out, into = weight[3]
    _refuse(g, out, weight[3], add)
    count = len(g)
    dx = torch.empty(count, into, dtype=g.dtype, device=g.device)
    tile = min(64, power(count, 16))
    launch(
        _gradient, (triton.cdiv(into, 64), triton.cdiv(count, tile)), dx, g,
        g if add is None else add, *_tables(weight), count, out, into, g.stride(0),
        ADD=add is not None, BLOCK=weight[4], GROUP=DYNAMIC_BLOCK if weight[2] else 0,
        ROWS=tile, OUT=64, INTO=64, num_warps=4, num_stages=3, enable_fp_fusion=False,
    )  # fmt: skip
    return dx
