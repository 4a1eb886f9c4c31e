# pyright: basic
"""4-bit weights to numbers: one pass over the codes, one over the result.

    ŵ = levels[code] · absmax[block]          two codes a byte, the first in its high half
    absmax = dynamic[code₂] · scales[block₂] + offset        with double quantisation, on the way

codes (⌈n/2⌉,), absmax (⌈n/block⌉,), out (n,). A program takes whole blocks, a row of its tile each,
so that a scale is read, and decoded, once a thread. The table of 16 levels is one line of the
first cache; looking it up costs less than choosing among 16 constants. Neighbouring threads read
neighbouring bytes and write neighbouring numbers.

The result is that of `reference.dequantize_4bit` bit for bit: no product is fused with a sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from math import prod

import torch
import triton
import triton.language as tl
from torch import Tensor

from etude.tuning.kernels.codebooks import CODEBOOKS, DYNAMIC_BLOCK, DYNAMIC_LEVELS
from etude.tuning.kernels.triton.arithmetic import rounded
from etude.tuning.kernels.triton.launching import launch

BYTES = 1024
"""Of codes, a program: 4 KB of bfloat16. Each of 128 threads stores 16 bytes at a time."""

WARPS = 4


@triton.jit
def scale_of(block, absmax, scales, offset, dynamic, inside, GROUP: tl.constexpr):
    """Return the scales of blocks, float32; GROUP 0: absmax is float32, else its codes."""
    if GROUP == 0:
        return tl.load(absmax + block, mask=inside, other=0.0)
    code = tl.load(absmax + block, mask=inside, other=0).to(tl.int32)
    scale = tl.load(scales + block // GROUP, mask=inside, other=0.0)
    return tl.load(dynamic + code) * scale + tl.load(offset)


@triton.jit
def _decode(
    out,
    codes,
    absmax,
    scales,
    offset,
    levels,
    dynamic,
    count,
    pairs,
    BLOCK: tl.constexpr,
    GROUP: tl.constexpr,
    ROWS: tl.constexpr,
):
    block = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    scale = scale_of(block, absmax, scales, offset, dynamic, block * BLOCK < count, GROUP)
    byte = block * (BLOCK // 2) + tl.arange(0, BLOCK // 2)[None, :]
    # Against bytes, not weights: so the compiler sees that neighbours are inside together.
    code = tl.load(codes + byte, mask=byte < pairs, other=0).to(tl.int32)
    high = tl.load(levels + (code >> 4)) * scale
    low = tl.load(levels + (code & 15)) * scale
    place = block * BLOCK + tl.arange(0, BLOCK)[None, :]
    value = rounded(tl.interleave(high, low), out.dtype.element_ty)
    tl.store(out + place, value, mask=place < count)


@triton.jit
def _decode_scales(out, codes, scales, offset, dynamic, count, GROUP: tl.constexpr):
    block = tl.program_id(0).to(tl.int64) * 1024 + tl.arange(0, 1024)
    inside = block < count
    value = scale_of(block, codes, scales, offset, dynamic, inside, GROUP)
    tl.store(out + block, value, mask=inside)


@cache
def levels_on(kind: str, device: torch.device) -> Tensor:
    """Return the 16 levels of a format on a device, float32; `dynamic`: the 256 of scales."""
    table = DYNAMIC_LEVELS if kind == "dynamic" else CODEBOOKS[kind].levels
    return table.to(device)


def dequantize_4bit(
    codes: Tensor,
    absmax: Tensor,
    shape: Sequence[int],
    block: int,
    kind: str,
    dtype: torch.dtype,
    double: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Decode a weight, `shape` in `dtype`; see `reference.dequantize_4bit`.

    Args:
        codes: uint8 (⌈n/2⌉,), contiguous, n = prod(shape).
        absmax: float32 (⌈n/block⌉,), contiguous; with `double` its codes, uint8.
        shape: of the weight.
        block: weights that share a scale, a power of two.
        kind: of the codes.
        dtype: of the result, floating.
        double: scales, float32 (⌈n/block/256⌉,), and offset, float32 (), of the codes of absmax.

    Raises:
        ValueError: codes or scales are not contiguous.
    """
    if not (codes.is_contiguous() and absmax.is_contiguous()):
        raise ValueError("codes and scales must be contiguous")
    count = prod(shape)
    out = torch.empty(*shape, dtype=dtype, device=codes.device)
    scales, offset = double or (absmax, absmax)
    rows = max(1, 2 * BYTES // block)
    launch(
        _decode,
        (triton.cdiv(count, rows * block),),
        out,
        codes,
        absmax,
        scales,
        offset,
        levels_on(kind, codes.device),
        levels_on("dynamic", codes.device),
        count,
        (count + 1) // 2,
        BLOCK=block,
        GROUP=DYNAMIC_BLOCK if double else 0,
        ROWS=rows,
        num_warps=WARPS,
        enable_fp_fusion=False,
    )
    return out


def dequantize_absmax(codes: Tensor, scales: Tensor, offset: Tensor) -> Tensor:
    """Decode the scales of a weight, float32 (blocks,); see `reference.dequantize_absmax`."""
    out = torch.empty(codes.shape, dtype=torch.float32, device=codes.device)
    count = codes.numel()
    launch(
        _decode_scales,
        (triton.cdiv(count, 1024),),
        out,
        codes.contiguous(),
        scales.contiguous(),
        offset,
        levels_on("dynamic", codes.device),
        count,
        GROUP=DYNAMIC_BLOCK,
        num_warps=WARPS,
        enable_fp_fusion=False,
    )
    return out
