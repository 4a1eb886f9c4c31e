"""What each operation is, in plain PyTorch: the definition every faster kernel must equal.

A weight is read row after row as one line of numbers, and cut into blocks of `block` of them; the
last block may be shorter. Each block has one scale, its absmax; each weight is divided by the
scale and replaced by the code of the nearest of 16 levels (`codebooks`), four bits, two to a byte,
the first in the high half:

    W ──flatten──▶ w₀ w₁ w₂ w₃ …  ──▶  absmax = max |w| over the block      (float32, one a block)
                                       place  = #{midpoints < w / absmax}   (0..15, by level)
                                       code   = order[place]
                                       byte   = code₀ · 16 + code₁

Decoding multiplies in float32 and rounds once, to the dtype asked for. Double quantisation
applies the same idea to the scales: their mean is taken off, and blocks of 256 of what is left are
coded in 8 bits (Dettmers et al. 2023, "QLoRA", section 3). An 8-bit weight is uniform, and a row
has one scale:

    code = round(w · 127 / absmax)        ŵ = code · absmax / 127

(Dettmers et al. 2022, "LLM.int8()", section 2.1). The bytes are those of bitsandbytes, which fixes
two details that the papers leave open: whole blocks are multiplied by the reciprocal of the scale
while the last, shorter one is divided by it, and the 8-bit code of a scale is looked up by cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from etude.tuning.kernels.codebooks import (
    CODEBOOKS,
    DYNAMIC_BLOCK,
    DYNAMIC_CELLS,
    DYNAMIC_LEVELS,
    INT8_LARGEST,
    SMALLEST_NUMBER,
    SMALLEST_SCALE,
)


def quantize_4bit(x: Tensor, block: int, kind: str) -> tuple[Tensor, Tensor]:
    """Return the codes of `x`, uint8 (ceil(n / 2),), and absmax, float32 (ceil(n / block),).

    A block of zeros has absmax 0 and the code of zero; the last block, where it is shorter than
    `block`, has absmax 1e-38 instead of 0. An odd n is padded by the code of zero.
    """
    flat = x.reshape(-1).float()
    whole = flat.numel() - flat.numel() % block
    blocks, rest = flat[:whole].view(-1, block), flat[whole:]

    absmax = blocks.abs().amax(1)
    unit = (blocks * (1.0 / absmax.clamp(min=SMALLEST_SCALE))[:, None]).view(-1)
    if rest.numel():
        last = rest.abs().amax().clamp(min=SMALLEST_SCALE)
        absmax = torch.cat([absmax, last[None]])
        unit = torch.cat([unit, rest / last])
    # A reciprocal below the normal range is coarse enough to leave |unit| above 1.
    unit = unit.clamp(-1, 1)

    book = CODEBOOKS[kind]
    place = (unit[:, None] > book.midpoints.to(x.device)).sum(1)
    codes = place.new_tensor(book.order)[place].to(torch.uint8)
    if codes.numel() % 2:
        codes = torch.cat([codes, codes.new_tensor([book.zero])])
    return codes[::2] * 16 + codes[1::2], absmax


def dequantize_4bit(
    codes: Tensor,
    absmax: Tensor,
    shape: Sequence[int],
    block: int,
    kind: str,
    dtype: torch.dtype,
) -> Tensor:
    """Return the weight, `shape` in `dtype`: level of the code times absmax of its block."""
    count = prod(shape)
    nibbles = torch.stack([codes >> 4, codes & 15], dim=1).view(-1)[:count]
    levels = CODEBOOKS[kind].levels.to(codes.device)[nibbles.long()]
    scales = absmax.repeat_interleave(block)[:count]
    return (levels * scales).to(dtype).view(*shape)


def quantize_absmax(absmax: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return (codes, scales, offset) of the scales `absmax`, float32 (blocks,).

    codes: uint8 (blocks,). scales: float32 (ceil(blocks / 256),), the absmax of absmax - offset.
    offset: float32 (), the mean. A block of 256 equal to the offset has scale 0 and codes 0.
    """
    offset = absmax.mean()
    centered = absmax - offset
    count = centered.numel()
    padded = centered.new_zeros(-(-count // DYNAMIC_BLOCK) * DYNAMIC_BLOCK)
    padded[:count] = centered
    blocks = padded.view(-1, DYNAMIC_BLOCK)

    scales = blocks.abs().amax(1)
    # Zero times the reciprocal of a zero or very small scale has no value: cell 0 by convention.
    unit = (blocks * (1.0 / scales)[:, None]).clamp(-1, 1)
    position = (unit + 1) * 0.5 * (DYNAMIC_CELLS - 1) + 0.5
    cell = position.nan_to_num(0.0).long()

    center = cell.double() / (DYNAMIC_CELLS - 1) * 2 - 1
    levels = DYNAMIC_LEVELS.to(absmax.device, torch.float64)
    codes = (center[..., None] > (levels[:-1] + levels[1:]) / 2).sum(-1).to(torch.uint8)
    return codes.view(-1)[:count], scales, offset


def dequantize_absmax(codes: Tensor, scales: Tensor, offset: Tensor) -> Tensor:
    """Return the scales, float32 (blocks,): level of the code times its scale, plus the offset."""
    levels = DYNAMIC_LEVELS.to(codes.device)[codes.long()]
    return levels * scales.repeat_interleave(DYNAMIC_BLOCK)[: codes.numel()] + offset


def quantize_int8(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the codes of `x`, int8 (rows, columns), and absmax, float32 (rows,).

    Halves go to the even code. A row of zeros has absmax 0 and codes 0.
    """
    values = x.float()
    absmax = values.abs().amax(1)
    reciprocal = (INT8_LARGEST / absmax)[:, None]
    # A row below 4e-37 has no reciprocal: there, and only there, the division comes first.
    tiny = values / absmax.clamp(min=SMALLEST_NUMBER)[:, None]
    scaled = torch.where(reciprocal.isinf(), tiny * INT8_LARGEST, values * reciprocal)
    return scaled.round().clamp(-INT8_LARGEST, INT8_LARGEST).to(torch.int8), absmax


def dequantize_int8(codes: Tensor, absmax: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the weight, (rows, columns) in `dtype`: code times absmax times 1/127."""
    return (codes.float() * absmax[:, None] * (1 / INT8_LARGEST)).to(dtype)
