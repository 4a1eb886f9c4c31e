"""The operations on a processor: panels that stay in its cache, tables instead of branches.

Decoding. A byte holds two weights, so a table of 256 entries gives both at once: two float32
levels, moved as one 64-bit word. A panel of bytes is looked up, multiplied by its scales and
rounded into the output before the next is touched, so that memory sees the codes once and the
result once.

Encoding. Which of 15 midpoints lie below a value is found without searching: [-1, 1] is cut into
1024 equal cells, of which none holds two midpoints. A cell's first code is known beforehand, and
one comparison with the midpoint inside it, if there is one, decides. This is exact, whatever the
rounding of the cell's index: the index never falls as the value rises, so a midpoint in a lower
cell lies below every value of this one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from etude.tuning.kernels import native
from etude.tuning.kernels.codebooks import (
    CODEBOOKS,
    DYNAMIC_BLOCK,
    DYNAMIC_CELLS,
    DYNAMIC_LEVELS,
    INT8_LARGEST,
    SMALLEST_NUMBER,
    SMALLEST_SCALE,
    Codebook,
)

PANEL = 1 << 18
"""Weights worked on at a time: one MiB in float32, a multiple of every block size. Smaller
ones pay more for calls than for work, larger ones leave the cache."""

_CELLS = 1024


@dataclass(frozen=True)
class _Tables:
    """What a 4-bit format is, made ready for looking up."""

    first: Tensor
    """Place of a cell's smallest values in the order of levels, uint8 (cells,)."""

    inside: Tensor
    """The midpoint inside a cell, or infinity, float32 (cells,)."""

    order: Tensor
    """The code of each place, uint8 (16,)."""

    sorted: bool
    """Whether places are the codes themselves."""

    pairs: Tensor
    """The two levels of a byte, float32, as one int64, (256,)."""

    zero: int


def _cell_position(unit: Tensor) -> Tensor:
    """Return the cell of each value in [-1, 1], before truncation: 0 to `_CELLS`."""
    return (unit + 1).mul_(_CELLS / 2)


def _tables(book: Codebook) -> _Tables:
    first = torch.zeros(_CELLS + 1, dtype=torch.uint8)
    inside = torch.full((_CELLS + 1,), float("inf"))
    for midpoint in book.midpoints:
        if midpoint < -1:
            first += 1
            continue
        cell = int(_cell_position(midpoint))
        assert inside[cell].isinf(), "two midpoints in a cell: it cannot tell three levels apart"
        inside[cell] = midpoint
        first[cell + 1 :] += 1
    byte = torch.arange(256)
    pairs = torch.stack([book.levels[byte >> 4], book.levels[byte & 15]], 1)
    order = torch.tensor(book.order, dtype=torch.uint8)
    ascending = book.order == tuple(range(16))
    return _Tables(first, inside, order, ascending, pairs.view(torch.int64).view(-1), book.zero)


def _dynamic_codes() -> Tensor:
    """Return for each cell of the 8-bit map the level nearest its center, uint8."""
    center = torch.arange(DYNAMIC_CELLS, dtype=torch.float64) / (DYNAMIC_CELLS - 1) * 2 - 1
    levels = DYNAMIC_LEVELS.double()
    return torch.bucketize(center, (levels[:-1] + levels[1:]) / 2).to(torch.uint8)


_TABLES = {kind: _tables(book) for kind, book in CODEBOOKS.items()}
_DYNAMIC_CODES = _dynamic_codes()


def quantize_4bit(x: Tensor, block: int, kind: str) -> tuple[Tensor, Tensor]:
    """Quantize `x`; see `reference.quantize_4bit`. Temporary memory: a few panels.

    `x` is finite; where it is not contiguous it is copied first.
    """
    tables = _TABLES[kind]
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
        torch.index_select(tables.first, 0, cell, out=code[:size])
        code[:size] += unit > tables.inside.index_select(0, cell)
        if not tables.sorted:
            code[:size] = tables.order.index_select(0, code[:size].int())
        if size % 2:
            code[size] = tables.zero
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


def dequantize_4bit(
    codes: Tensor,
    absmax: Tensor,
    shape: Sequence[int],
    block: int,
    kind: str,
    dtype: torch.dtype,
) -> Tensor:
    """Decode; see `reference.dequantize_4bit`. Temporary memory: two panels."""
    count = prod(shape)
    out = torch.empty(count, dtype=dtype)
    if dtype in (torch.bfloat16, torch.float32) and native.status().ready:
        levels = CODEBOOKS[kind].levels
        native.call("dequantize", dtype, codes, absmax, levels, out, count, block)
        return out.view(*shape)
    pairs_of_levels = _TABLES[kind].pairs
    pairs = min(PANEL, count + 1) // 2
    index = torch.empty(pairs, dtype=torch.int32)
    word = torch.empty(pairs, dtype=torch.int64)

    for start in range(0, count, PANEL):
        size = min(PANEL, count - start)
        bytes_here = codes[start // 2 : -(-(start + size) // 2)]
        here = bytes_here.numel()
        index[:here].copy_(bytes_here)
        torch.index_select(pairs_of_levels, 0, index[:here], out=word[:here])
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


def quantize_int8(x: Tensor) -> tuple[Tensor, Tensor]:
    """Quantize rows; see `reference.quantize_int8`. Temporary memory: a few panels."""
    rows, columns = x.shape
    codes = torch.empty(rows, columns, dtype=torch.int8)
    absmax = torch.empty(rows)
    for start, stop in _row_panels(rows, columns):
        values = x[start:stop].float()
        scale = values.abs().amax(1)
        absmax[start:stop] = scale
        reciprocal = INT8_LARGEST / scale
        scaled = values * reciprocal[:, None]
        if (tiny := reciprocal.isinf()).any():
            divisor = scale[tiny].clamp(min=SMALLEST_NUMBER)
            scaled[tiny] = values[tiny] / divisor[:, None] * INT8_LARGEST
        codes[start:stop] = scaled.round_().clamp_(-INT8_LARGEST, INT8_LARGEST)
    return codes, absmax


def dequantize_int8(codes: Tensor, absmax: Tensor, dtype: torch.dtype) -> Tensor:
    """Decode rows; see `reference.dequantize_int8`. Temporary memory: a panel."""
    out = torch.empty(codes.shape, dtype=dtype)
    for start, stop in _row_panels(*codes.shape):
        levels = codes[start:stop].float()
        levels.mul_(absmax[start:stop, None]).mul_(1 / INT8_LARGEST)
        out[start:stop].copy_(levels)
    return out


def _row_panels(rows: int, columns: int) -> list[tuple[int, int]]:
    """Cut a matrix into runs of rows of about a panel."""
    step = max(1, PANEL // columns)
    return [(start, min(start + step, rows)) for start in range(0, rows, step)]
