"""Uniform symmetric quantisation: x̂ = round(s·x)/s, clipped to the range of k bits.

With q = 2^(k−1) − 1 the largest code and a the largest magnitude in a group with one scale,

    s = q / a        code = clip(round(s·x), −q, q)        x̂ = code / s = code · a / q

so zero is a code, −x̂ is the code of −x, and the largest magnitude is exact up to rounding. Halves
round to the even code. A group of zeros has scale a = 0 and decodes to zeros.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Scale = Literal["tensor", "row", "block"]


def quantize_uniform(
    x: Tensor, bits: int, scale: Scale = "row", block: int = 64
) -> tuple[Tensor, Tensor]:
    """Quantize a matrix.

    Args:
        x: (rows, columns), floating point.
        bits: k, 2 to 8.
        scale: granularity of the scales: all, a row, or `block` neighbours in a row (the last
            block of a row may be shorter).
        block: block size for `scale: block`.

    Returns:
        codes: int8 (rows, columns), from −q to q.
        steps: float32, a / q: the distance of two codes; (1, 1), (rows, 1) or (rows, blocks).
    """
    largest = 2 ** (bits - 1) - 1
    groups = _groups(x.float(), scale, block)
    steps = groups.abs().amax(-1) / largest
    # The reciprocal of a subnormal step overflows: such groups become zeros.
    safe = steps.where(steps >= torch.finfo(torch.float32).tiny, torch.inf)
    codes = (groups / safe[..., None]).round_().clamp_(-largest, largest).to(torch.int8)
    steps = steps.where(safe.isfinite(), 0.0)
    return _flat(codes, x.shape), steps


def dequantize_uniform(
    codes: Tensor, steps: Tensor, scale: Scale = "row", block: int = 64
) -> Tensor:
    """Decode: code times step, float32, (rows, columns)."""
    groups = _groups(codes.float(), scale, block)
    return _flat(groups * steps.view(*groups.shape[:-1], 1), codes.shape)


def pack_bits(codes: Tensor, bits: int) -> Tensor:
    """Pack codes, int8 of k bits, end to end: uint8 (ceil(n · bits / 8),), lowest bit first."""
    unsigned = codes.flatten().to(torch.int16) & (2**bits - 1)
    places = torch.arange(bits, dtype=torch.int16)
    line = ((unsigned[:, None] >> places) & 1).to(torch.uint8).flatten()
    line = torch.nn.functional.pad(line, (0, -len(line) % 8)).view(-1, 8)
    weights = torch.tensor([1 << place for place in range(8)], dtype=torch.uint8)
    return (line * weights).sum(1, dtype=torch.uint8)


def unpack_bits(packed: Tensor, bits: int, count: int) -> Tensor:
    """Return the first `count` codes that `pack_bits` packed, int8.

    Raises:
        ValueError: the number of bytes does not fit `count`.
    """
    if packed.numel() != -(-count * bits // 8):
        raise ValueError(f"{count} codes of {bits} bits need a different number of bytes")
    line = (packed.flatten()[:, None] >> torch.arange(8, dtype=torch.uint8)) & 1
    fields = line.flatten()[: count * bits].view(count, bits).to(torch.int16)
    weights = torch.tensor([1 << place for place in range(bits)], dtype=torch.int16)
    unsigned = (fields * weights).sum(1, dtype=torch.int16)
    sign = 1 << (bits - 1)
    return ((unsigned ^ sign) - sign).to(torch.int8)


def _groups(x: Tensor, scale: Scale, block: int) -> Tensor:
    """Return groups with one scale along the last dimension, short blocks padded with zeros."""
    if scale == "tensor":
        return x.reshape(1, 1, -1)
    if scale == "row":
        return x[:, None]
    return torch.nn.functional.pad(x, (0, -x.shape[1] % block)).view(len(x), -1, block)


def _flat(groups: Tensor, shape: torch.Size) -> Tensor:
    if groups.shape[0] == 1 and groups.shape[1] == 1:
        return groups.reshape(shape)
    return groups.flatten(1)[:, : shape[1]].contiguous()
