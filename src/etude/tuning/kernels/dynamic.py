"""Block-wise dynamic quantisation: numbers of very different size in 8 bits each.

    x ──blocks of 256──▶  absmax = max |x| over the block            (float32, one a block)
                          code   = index of the level nearest x / absmax     (uint8)

The levels are a dynamic map (`codebooks`): signed for AdamW's first moment, unsigned for its
second (Dettmers et al. 2022, "8-bit Optimizers via Block-wise Quantization", sections 2.1 and
2.2). A value halfway between two levels takes the lower code, and zero is coded exactly, so that
a weight without gradients keeps moments of exactly zero.

In one thing this departs from the paper: unsigned, a positive number takes the lowest positive
level rather than zero. A weight whose gradients are 2500 times smaller than the largest of its
block would have its second moment rounded away and its first one not; when a gradient then fails
to come (a token's row, say), the step would be m / ε, thousands of times too long.

The nearest level is found without searching. The upper 16 bits of a float32 (sign, exponent and 7
bits of the mantissa) name a cell, of which none within [-1, 1] holds two midpoints between levels:
a table gives the cell's first code, and one comparison with the midpoint inside it, if there is
one, decides. This is exact, and eight times faster than bisection.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from etude.tuning.kernels.codebooks import (
    DYNAMIC_BLOCK,
    DYNAMIC_LEVELS,
    DYNAMIC_UNSIGNED_LEVELS,
    SMALLEST_SCALE,
)

_CELLS = 1 << 16


@cache
def _tables(device: torch.device, signed: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return the levels, and each cell's first code (uint8) and the midpoint inside it or infinity.

    Cells are in the order of their upper 16 bits read as a signed number.
    """
    levels = DYNAMIC_LEVELS if signed else DYNAMIC_UNSIGNED_LEVELS
    # Rounded down: a float32 is above the midpoint exactly where it is above that.
    exact = (levels[:-1].double() + levels[1:].double()) / 2
    midpoints = exact.float()
    below = torch.nextafter(midpoints, torch.full_like(midpoints, -torch.inf))
    midpoints = torch.where(midpoints > exact, below, midpoints)
    if not signed:
        midpoints[0] = 0
    lowest_bits = (torch.arange(_CELLS) - _CELLS // 2) << 16
    ends = [
        bits.to(torch.int32).view(torch.float32) for bits in (lowest_bits, lowest_bits | 0xFFFF)
    ]
    # The magnitude rises with the bits; the cells of negative numbers run the other way.
    low, high = torch.minimum(*ends), torch.maximum(*ends)
    first = torch.bucketize(low, midpoints)
    inside = torch.cat([midpoints, torch.tensor([torch.inf])])[first]
    inside = torch.where(inside < high, inside, torch.inf)
    return levels.to(device), first.to(torch.uint8).to(device), inside.to(device)


def quantize_dynamic(x: Tensor, *, signed: bool) -> tuple[Tensor, Tensor]:
    """Quantize to 8 bits in blocks of 256.

    Args:
        x: finite, float32 (n,), contiguous; not negative if not `signed`.
        signed: which of the two maps.

    Returns:
        codes: uint8 (n,).
        absmax: float32 (ceil(n / 256),), zero for a block of zeros.
    """
    _, first, inside = _tables(x.device, signed)
    count = x.numel()
    blocks = x.new_zeros(-(-count // DYNAMIC_BLOCK), DYNAMIC_BLOCK)
    unit = blocks.view(-1)[:count].copy_(x)
    absmax = blocks.abs().amax(1)
    scale = absmax
    tiny = (absmax > 0) & (absmax < SMALLEST_SCALE)
    if bool(tiny.any()):
        # A reciprocal of a subnormal number overflows, or is clamped away; a power of two is exact.
        rise = torch.where(tiny, 2.0**64, 1.0)
        blocks.mul_(rise[:, None])
        scale = absmax * rise
    # The reciprocal, as in bitsandbytes: a quotient would differ in its last bit now and then.
    blocks.mul_(scale.clamp(min=SMALLEST_SCALE).reciprocal_()[:, None]).clamp_(-1, 1)
    cell = (unit.view(torch.int32) >> 16).add_(_CELLS // 2)
    return first.index_select(0, cell).add_(unit > inside.index_select(0, cell)), absmax


def dequantize_dynamic(codes: Tensor, absmax: Tensor, *, signed: bool) -> Tensor:
    """Decode to float32 (n,): level of the code times its block's absmax.

    Args:
        codes: uint8 (n,).
        absmax: float32 (ceil(n / 256),).
        signed: as it was quantised with.
    """
    levels, _, _ = _tables(codes.device, signed)
    count = codes.numel()
    decoded = absmax.new_empty(absmax.numel(), DYNAMIC_BLOCK)
    flat = decoded.view(-1)
    torch.index_select(levels, 0, codes.int(), out=flat[:count])
    flat[count:] = 0
    return decoded.mul_(absmax[:, None]).view(-1)[:count]
