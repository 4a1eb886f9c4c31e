"""GGUF's blocks, decoded: one operation for all of llama.cpp's common formats.

A row of a weight is cut into blocks of 32 weights, or 256 in the K formats. A block is bytes:
small whole numbers q, and one or two float16 scales; in the K formats groups of 16 or 32 weights
have scales of their own, whole numbers too, of which d (and m) are the scale:

    Q4_0, Q5_0, Q8_0    w = d · (q - zero)
    Q4_1, Q5_1          w = d · q + m
    Q4_K, Q5_K          w = (d · s) · q - (m · t)      s, t: 6 bits a group of 32
    Q6_K                w = (d · s) · (q - 32)         s: 8 bits a group of 16

In float32, in this order, without fused operations, so that the numbers are those of the `gguf`
package bit for bit. Where the bits of q lie is what the formats differ in; see each of them.

`reference` says what is right, for every device; `_dequantize_cpu` is the fast one: a panel of
blocks at a time, eight codes to a 64-bit word, and the result written once.

Layouts: https://github.com/ggml-org/ggml, `ggml-common.h` and `ggml-quants.c`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

PANEL = 1 << 19
"""Weights worked on at a time: two MiB in float32. Some formats take thirty calls a panel, so it
is twice as large as NF4's."""


@dataclass(frozen=True)
class BlockFormat:
    """How one format lays out a block."""

    weights: int
    """In a block."""

    bytes: int
    """Of a block."""

    zero: int
    """The code that stands for 0; it is taken off before scaling."""

    codes: Callable[[Tensor], Tensor]
    """Blocks, uint8 (n, bytes), to their codes, uint8 (n, weights); int8 for Q8_0."""

    unpack: Callable[[Tensor, Tensor], object]
    """The same, written into the second argument, int8 (n, weights), contiguous."""

    scales: Callable[[Tensor], tuple[Tensor, Tensor | None]]
    """Blocks to scale and offset of each group, float32 (n, groups); offset None: nothing added."""


# Scales and offsets


def _copied(raw: Tensor) -> Tensor:
    """Return the bytes moved together, at an address where they can be read as larger words."""
    return raw.clone(memory_format=torch.contiguous_format)


def _half(blocks: Tensor, start: int) -> Tensor:
    """Return the float16 at byte `start` of each block, as float32: (n, 1)."""
    return _copied(blocks[:, start : start + 2]).view(torch.float16).float()


def _one_scale(blocks: Tensor) -> tuple[Tensor, None]:
    return _half(blocks, 0), None


def _scale_and_offset(blocks: Tensor) -> tuple[Tensor, Tensor]:
    return _half(blocks, 0), _half(blocks, 2)


_SIX_BITS, _LOW_FOUR, _UPPER_TWO = 0x3F3F3F3F, 0x0F0F0F0F, 0x30303030


def _six_bit_scales(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Scales s and t of 8 groups in bytes 4 to 16, six bits each.

    Bytes 0..3 hold s of the first four groups in their low six bits, 4..7 hold t likewise; bytes
    8..11 hold the low four bits of s and t of the other four, whose upper two bits are the upper
    two of bytes 0..3 and 4..7.
    """
    s, t, low = _copied(blocks[:, 4:16]).view(torch.int32).unbind(1)  # four bytes at a time
    scales = torch.stack([s & _SIX_BITS, low & _LOW_FOUR | s >> 2 & _UPPER_TWO], 1)
    offsets = torch.stack([t & _SIX_BITS, low >> 4 & _LOW_FOUR | t >> 2 & _UPPER_TWO], 1)
    return (
        scales.view(torch.uint8).float().mul_(_half(blocks, 0)),
        offsets.view(torch.uint8).float().mul_(_half(blocks, 2)).neg_(),
    )


def _eight_bit_scales(blocks: Tensor) -> tuple[Tensor, None]:
    scales = blocks[:, 192:208].contiguous().view(torch.int8).float()
    return scales.mul_(_half(blocks, 208)), None


# Codes, as the reference reads them


def _nibbles(raw: Tensor, groups: int) -> Tensor:
    """Low halves, then high halves, of each of `groups` equal parts of the bytes: (n, 2·bytes)."""
    parts = raw.reshape(len(raw), groups, 1, -1)
    return torch.cat([parts & 15, parts >> 4], 2).view(len(raw), -1)


def _fifth_bits(raw: Tensor) -> Tensor:
    """The 32 bits of 4 bytes, lowest first, each worth 16: (n, 32)."""
    shifts = torch.arange(8, dtype=torch.uint8, device=raw.device)
    return ((raw[:, :, None] >> shifts & 1) << 4).view(len(raw), -1)


def _bit_planes(raw: Tensor, bits: int, groups: int) -> Tensor:
    """`bits` bits of each byte, lowest first, from each of `groups` parts, worth 16 and on."""
    shifts = torch.arange(0, 8, bits, dtype=torch.uint8, device=raw.device)[None, None, :, None]
    parts = raw.reshape(len(raw), groups, 1, -1) >> shifts
    return ((parts & (1 << bits) - 1) << 4).view(len(raw), -1)


# Codes, as the processor reads them: `codes` is int8 (n, weights), a word is 8 of its bytes

_LOW_HALVES = 0x0F0F0F0F0F0F0F0F


def _words(raw: Tensor) -> Tensor:
    return _copied(raw).view(torch.int64)


def _write_nibbles(raw: Tensor, codes: Tensor, groups: int) -> None:
    words = _words(raw).view(len(raw), groups, -1)
    halves = codes.view(torch.int64).view(len(raw), groups, 2, -1)
    torch.bitwise_and(words, _LOW_HALVES, out=halves[:, :, 0])
    # The sign is shifted in at the top, and masked away.
    torch.bitwise_and(words >> 4, _LOW_HALVES, out=halves[:, :, 1])


def _spread_bits() -> Tensor:
    """For each byte, a word with bit i of it in byte i, worth 16: int64 (256,)."""
    return _fifth_bits(torch.arange(256, dtype=torch.uint8)[:, None]).view(torch.int64).view(-1)


_SPREAD_BITS = _spread_bits()


def _add_fifth_bits(raw: Tensor, codes: Tensor) -> None:
    words = torch.index_select(_SPREAD_BITS, 0, raw.int().view(-1))
    codes.view(torch.int64).view(-1).bitwise_or_(words)


def _add_bit_planes(raw: Tensor, codes: Tensor, bits: int, groups: int) -> None:
    words = _words(raw).view(len(raw), groups, -1)
    planes = codes.view(torch.int64).view(len(raw), groups, 8 // bits, -1)
    # In each byte, the bits worth 16 and on.
    mask = 0x0101010101010101 * ((1 << bits) - 1 << 4)
    for plane in range(8 // bits):
        shift = bits * plane - 4
        moved = words >> shift if shift >= 0 else words << -shift
        planes[:, :, plane].bitwise_or_(moved.bitwise_and_(mask))


# The formats


def _q4(start: int) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor, Tensor], object]]:
    """16 bytes of codes: weights 0..15 in the low halves, 16..31 in the high ones."""
    return (
        lambda blocks: _nibbles(blocks[:, start:], 1),
        lambda blocks, codes: _write_nibbles(blocks[:, start:], codes, 1),
    )


def _q5(start: int) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor, Tensor], object]]:
    """4 bytes of fifth bits, one a weight, before the 16 bytes as in Q4."""

    def codes(blocks: Tensor) -> Tensor:
        return _nibbles(blocks[:, start + 4 :], 1) | _fifth_bits(blocks[:, start : start + 4])

    def unpack(blocks: Tensor, out: Tensor) -> None:
        _write_nibbles(blocks[:, start + 4 :], out, 1)
        _add_fifth_bits(blocks[:, start : start + 4], out)

    return codes, unpack


def _q8_codes(blocks: Tensor) -> Tensor:
    """32 signed bytes."""
    return blocks[:, 2:].contiguous().view(torch.int8)


def _q8_unpack(blocks: Tensor, codes: Tensor) -> None:
    codes.copy_(blocks.view(torch.int8)[:, 2:])


def _q4_k_codes(blocks: Tensor) -> Tensor:
    """4 times 32 bytes: a group in the low halves, the next in the high ones."""
    return _nibbles(blocks[:, 16:], 4)


def _q4_k_unpack(blocks: Tensor, codes: Tensor) -> None:
    _write_nibbles(blocks[:, 16:], codes, 4)


def _q5_k_codes(blocks: Tensor) -> Tensor:
    """32 bytes whose bit j is the fifth bit in group j, then as Q4_K."""
    return _nibbles(blocks[:, 48:], 4) | _bit_planes(blocks[:, 16:48], 1, 1)


def _q5_k_unpack(blocks: Tensor, codes: Tensor) -> None:
    _write_nibbles(blocks[:, 48:], codes, 4)
    _add_bit_planes(blocks[:, 16:48], codes, 1, 1)


def _q6_k_codes(blocks: Tensor) -> Tensor:
    """Twice 64 bytes of low halves, then twice 32 bytes with two upper bits of four groups."""
    return _nibbles(blocks[:, :128], 2) | _bit_planes(blocks[:, 128:192], 2, 2)


def _q6_k_unpack(blocks: Tensor, codes: Tensor) -> None:
    _write_nibbles(blocks[:, :128], codes, 2)
    _add_bit_planes(blocks[:, 128:192], codes, 2, 2)


FORMATS: dict[str, BlockFormat] = {
    "Q4_0": BlockFormat(32, 18, 8, *_q4(2), _one_scale),
    "Q4_1": BlockFormat(32, 20, 0, *_q4(4), _scale_and_offset),
    "Q5_0": BlockFormat(32, 22, 16, *_q5(2), _one_scale),
    "Q5_1": BlockFormat(32, 24, 0, *_q5(4), _scale_and_offset),
    "Q8_0": BlockFormat(32, 34, 0, _q8_codes, _q8_unpack, _one_scale),
    "Q4_K": BlockFormat(256, 144, 0, _q4_k_codes, _q4_k_unpack, _six_bit_scales),
    "Q5_K": BlockFormat(256, 176, 0, _q5_k_codes, _q5_k_unpack, _six_bit_scales),
    "Q6_K": BlockFormat(256, 210, 32, _q6_k_codes, _q6_k_unpack, _eight_bit_scales),
}
"""By llama.cpp's names."""


def reference(blocks: Tensor, kind: str, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Return the weight, `shape` in `dtype`: (code - zero) times scale, plus offset."""
    form = FORMATS[kind]
    raw = blocks.reshape(-1, form.bytes)
    scale, offset = form.scales(raw)
    values = (form.codes(raw).float() - form.zero).view(len(raw), scale.shape[1], -1)
    weight = values * scale[:, :, None]
    if offset is not None:
        weight = weight + offset[:, :, None]
    return weight.to(dtype).view(*shape)


def _dequantize_cpu(blocks: Tensor, kind: str, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Decode; see `reference`. Temporary memory: a panel or two."""
    form = FORMATS[kind]
    raw = blocks.reshape(-1, form.bytes)
    out = torch.empty(len(raw), form.weights, dtype=dtype)
    panel = min(PANEL // form.weights, len(raw))
    codes = torch.empty(panel, form.weights, dtype=torch.int8)
    values = None if dtype == torch.float32 else torch.empty(panel, form.weights)

    for start in range(0, len(raw), panel):
        part = raw[start : start + panel]
        count = len(part)
        form.unpack(part, codes[:count])
        if form.zero:
            codes[:count].sub_(form.zero)
        result = out[start : start + count]
        weight = result if values is None else values[:count]
        weight.copy_(codes[:count])
        scale, offset = form.scales(part)
        groups = weight.view(count, scale.shape[1], -1)
        groups.mul_(scale[:, :, None])
        if offset is not None:
            groups.add_(offset[:, :, None])
        if values is not None:
            result.copy_(weight)
    return out.view(*shape)


def _shape(
    blocks: Tensor,
    kind: str,  # noqa: ARG001 - the schema's
    shape: Sequence[int],
    dtype: torch.dtype,
) -> Tensor:
    return blocks.new_empty(*shape, dtype=dtype)


# PyTorch's registration functions carry no complete types.
_registry: Any = torch.library
_library: Any = torch.library.Library("etude", "FRAGMENT")
_library.define(
    "dequantize_gguf(Tensor blocks, str kind, SymInt[] shape, ScalarType dtype) -> Tensor",
    tags=(torch.Tag.pt2_compliant_tag,),
)
_library.impl("dequantize_gguf", reference, "CompositeExplicitAutograd")
_library.impl("dequantize_gguf", _dequantize_cpu, "CPU")
_registry.register_fake("etude::dequantize_gguf", _shape, lib=_library)
_dequantize: Any = torch.ops.etude.dequantize_gguf.default


def dequantize_gguf(blocks: Tensor, kind: str, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Decode blocks: in float32, rounded once to `dtype`.

    Args:
        blocks: uint8, any shape, the bytes of whole blocks one after another.
        kind: their format, a key of `FORMATS`.
        shape: of the weight; prod(shape) weights are in the blocks.
        dtype: of the result; any floating type.

    Returns:
        The weight, `shape` in `dtype`.
    """
    form = FORMATS.get(kind)
    if form is None:
        raise ValueError(f"no block format {kind!r}; there are {', '.join(FORMATS)}")
    if blocks.dtype != torch.uint8:
        raise TypeError(f"blocks are bytes, uint8, not {blocks.dtype}")
    count, left = divmod(prod(shape), form.weights)
    if left or blocks.numel() != count * form.bytes:
        raise ValueError(
            f"{tuple(shape)} in {kind} is whole blocks of {form.weights} weights in {form.bytes} "
            f"bytes, got {blocks.numel()} bytes"
        )
    return _dequantize(blocks, kind, shape, dtype)
