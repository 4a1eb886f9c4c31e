"""The operations on a processor: panels that stay in its cache, tables instead of branches.

Decoding. A byte holds two weights, so a table of 256 entries gives both at once: two float32
levels, moved as one 64-bit word. A panel of bytes is looked up, multiplied by its scales and
rounded into the output before the next is touched, so that memory sees the codes once and the
result once.

Encoding. Which of 15 midpoints lie below a value is found without searching: [-1, 1] is cut into
256 equal cells, of which none holds two midpoints. A cell's first code is known beforehand, and
one comparison with the midpoint inside it, if there is one, decides. This is exact, whatever the
rounding of the cell's index: the index never falls as the value rises, so a midpoint in a lower
cell lies below every value of this one.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from etude.tuning.kernels.codebooks import (
    DYNAMIC_BLOCK,
    DYNAMIC_CELLS,
    DYNAMIC_LEVELS,
    NF4_LEVELS,
    NF4_MIDPOINTS,
    NF4_ZERO,
    SMALLEST_SCALE,
)

PANEL = 1 << 18
"""Weights worked on at a time: one MiB in float32, a multiple of every block size. Smaller
ones pay more for calls than for work, larger ones leave the cache."""

_CELLS = 256


def _cell_position(unit: Tensor) -> Tensor:
    """Return the cell of each value in [-1, 1], before truncation: 0 to `_CELLS`."""
    return (unit + 1).mul_(_CELLS / 2)


def _cell_tables() -> tuple[Tensor, Tensor]:
    """Return each cell's first code, uint8, and the midpoint inside it, or infinity."""
    cells = _cell_position(NF4_MIDPOINTS).long()
    first = torch.zeros(_CELLS + 1, dtype=torch.uint8)
    inside = torch.full((_CELLS + 1,), float("inf"))
    inside[cells] = NF4_MIDPOINTS
    for cell in cells:
        first[int(cell) + 1 :] += 1
    return first, inside


def _level_pairs() -> Tensor:
    """Return for each byte its two levels, float32, as one int64."""
    byte = torch.arange(256)
    return torch.stack([NF4_LEVELS[byte >> 4], NF4_LEVELS[byte & 15]], 1).view(torch.int64).view(-1)


def _dynamic_codes() -> Tensor:
    """Return for each cell of the 8-bit map the level nearest its center, uint8."""
    center = torch.arange(DYNAMIC_CELLS, dtype=torch.float64) / (DYNAMIC_CELLS - 1) * 2 - 1
    levels = DYNAMIC_LEVELS.double()
    return torch.bucketize(center, (levels[:-1] + levels[1:]) / 2).to(torch.uint8)


_FIRST_CODE, _MIDPOINT_INSIDE = _cell_tables()
_LEVEL_PAIRS = _level_pairs()
_DYNAMIC_CODES = _dynamic_codes()


def quantize_nf4(x: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """Quantize `x`; see `reference.quantize_nf4`. Temporary memory: a few panels.

    `x` is finite; where it is not contiguous it is copied first.
    """
    flat = x.reshape(-1)
    count = flat.numel()
    codes = torch.empty(-(-count // 2), dtype=torch.uint8)
    absmax = torch.empty(-(-count // block))
    panel = min(PANEL, count + count % 2)
    code = torch.empty(panel, dtype=torch.uint8)

    for start in range(0, count, PANEL):
        values = flat[start : start + PANEL].float()
        size = values.numel()
        unit = _to_unit(values, block, absmax[start // block : -(-(start + size) // block)])
        cell = _cell_position(unit).to(torch.int32)
        torch.index_select(_FIRST_CODE, 0, cell, out=code[:size])
        code[:size] += unit > _MIDPOINT_INSIDE.index_select(0, cell)
        if size % 2:
            code[size] = NF4_ZERO
            size += 1
        codes[start // 2 : (start + size) // 2] = _pack(code[:size])
    return codes, absmax


def _to_unit(values: Tensor, block: int, absmax: Tensor) -> Tensor:
    """Return `values`, whole blocks and perhaps a shorter last one, scaled to [-1, 1].

    Writes the scales into `absmax`.
    """
    whole = values.numel() - values.numel() % block
    unit = values.abs()
    if whole:
        blocks, scales = unit[:whole].view(-1, block), absmax[: whole // block]
        torch.amax(blocks, dim=1, out=scales)
        reciprocal = scales.clamp(min=SMALLEST_SCALE).reciprocal_()
        torch.mul(values[:whole].view(-1, block), reciprocal[:, None], out=blocks)
    if whole < values.numel():
        last = absmax[-1:].copy_(unit[whole:].amax().clamp_(min=SMALLEST_SCALE))
        torch.div(values[whole:], last, out=unit[whole:])
    return unit.clamp_(-1, 1)


def _pack(code: Tensor) -> Tensor:
    """Return pairs of 4-bit codes, uint8 (2n,), as int16 (n,) whose low bytes are the packed.

    Two neighbours read as one 16-bit number (first code in its low byte on every processor that
    PyTorch runs on) are shifted past each other, which is several times faster than strided reads.
    """
    pair = code.view(torch.int16)
    return (pair << 4) | (pair >> 8)


def dequantize_nf4(
    codes: Tensor, absmax: Tensor, shape: Sequence[int], block: int, dtype: torch.dtype
) -> Tensor:
    """Decode; see `reference.dequantize_nf4`. Temporary memory: two panels."""
    count = prod(shape)
    out = torch.empty(count, dtype=dtype)
    pairs = min(PANEL, count + 1) // 2
    index = torch.empty(pairs, dtype=torch.int32)
    word = torch.empty(pairs, dtype=torch.int64)

    for start in range(0, count, PANEL):
        size = min(PANEL, count - start)
        bytes_here = codes[start // 2 : -(-(start + size) // 2)]
        here = bytes_here.numel()
        index[:here].copy_(bytes_here)
        torch.index_select(_LEVEL_PAIRS, 0, index[:here], out=word[:here])
        levels = word.view(torch.float32)[:size]

        scales = absmax[start // block : -(-(start + size) // block)]
        whole = size - size % block
        levels[:whole].view(-1, block).mul_(scales[: whole // block, None])
        if whole < size:
            levels[whole:].mul_(scales[-1])
        out[start : start + size].copy_(levels)
    return out.view(*shape)


def quantize_absmax(absmax: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Quantize scales; see `reference.quantize_absmax`."""
    offset = absmax.mean()
    count = absmax.numel()
    blocks = absmax.new_zeros(-(-count // DYNAMIC_BLOCK), DYNAMIC_BLOCK)
    torch.sub(absmax, offset, out=blocks.view(-1)[:count])

    scales = blocks.abs().amax(1)
    unit = blocks.mul_(scales.reciprocal()[:, None]).clamp_(-1, 1)
    position = unit.add_(1).mul_(0.5).mul_(DYNAMIC_CELLS - 1).add_(0.5).nan_to_num_(0.0)
    codes = _DYNAMIC_CODES[position.to(torch.int32)]
    return codes.view(-1)[:count].clone(), scales, offset


def dequantize_absmax(codes: Tensor, scales: Tensor, offset: Tensor) -> Tensor:
    """Decode scales; see `reference.dequantize_absmax`."""
    count = codes.numel()
    padded = DYNAMIC_LEVELS.new_zeros(scales.numel(), DYNAMIC_BLOCK)
    torch.index_select(DYNAMIC_LEVELS, 0, codes.int(), out=padded.view(-1)[:count])
    return padded.mul_(scales[:, None]).view(-1)[:count].add_(offset).clone()
