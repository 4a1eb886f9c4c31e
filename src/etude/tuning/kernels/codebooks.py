"""The value tables that weights, their scales and an optimiser's moments are rounded to.

A 4-bit weight is one of 16 levels in [-1, 1], in units of its block's absmax:

    nf4    quantiles of the normal distribution, so that each level is used equally often by
           normally distributed weights, with an exact zero and both ends
           (Dettmers et al. 2023, "QLoRA", section 3 and appendix E)
    fp4    sign, two bits of exponent, one of mantissa: 0, 1/192, 1/6, 1/4, 1/3, 1/2, 2/3, 1; the
           codes are those bits, so they do not ascend, and there are two zeros
    int4   k/7 for k = -7 to 7: the uniform symmetric quantiser, x̂ = round(s·x)/s with s = 7/absmax

The 8-bit dynamic map has 256 levels whose spacing grows with their magnitude, from 5.5e-7 to 1
(Dettmers 2016, "8-Bit Approximations for Parallelism in Deep Learning"); it holds the scales of the
blocks in double quantisation, and AdamW's first moment. Its unsigned form, for what is never
negative, spends the sign's bit on twice as many levels and holds the second moment.

The tables of nf4, fp4 and the dynamic maps, as well as the rule for ties, are those of
bitsandbytes, so that a weight quantised here is the same bytes as one quantised there.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Codebook:
    """A 4-bit format: what each code stands for, and which code a value takes.

    A value takes the code of the nearest level; on a midpoint, that of the lower one.
    """

    levels: Tensor
    """The value of each code, float32 (16,), in units of the block's absmax."""

    order: tuple[int, ...]
    """The codes, by ascending level."""

    zero: int
    """The code of 0.0; it fills the last nibble when the number of weights is odd."""

    @cached_property
    def ascending(self) -> Tensor:
        """The levels in ascending order, float32 (16,)."""
        return self.levels[list(self.order)]

    @cached_property
    def midpoints(self) -> Tensor:
        """Where one level ends and the next begins, float32 (15,)."""
        return (self.ascending[:-1] + self.ascending[1:]) / 2

    @property
    def widest_half_gap(self) -> float:
        """The furthest that a number in [-1, 1] is from its level."""
        inside = self.ascending[self.ascending >= -1].double()
        return float((inside[1:] - inside[:-1]).max() / 2)


_NF4_LEVELS = torch.tensor(
    [
        -1.0,
        -0.6961928009986877,
        -0.5250730514526367,
        -0.39491748809814453,
        -0.28444138169288635,
        -0.18477343022823334,
        -0.09105003625154495,
        0.0,
        0.07958029955625534,
        0.16093020141124725,
        0.24611230194568634,
        0.33791524171829224,
        0.44070982933044434,
        0.5626170039176941,
        0.7229568362236023,
        1.0,
    ],
    dtype=torch.float32,
)

# The magnitudes of FP4 by its three bits below the sign, in twelfths; the second is 1/16.
_FP4_TWELFTHS = torch.tensor([0, 0.0625, 8, 12, 4, 6, 2, 3], dtype=torch.float32)
_FP4_LEVELS = torch.cat([_FP4_TWELFTHS, -_FP4_TWELFTHS + 0.0]) / 12
"""Code 8, the sign alone, decodes to +0.0."""

_INT4_LEVELS = torch.arange(-8, 8, dtype=torch.float32) / 7
"""Code 0 would be -8/7 and is not used: the quantiser is symmetric."""

CODEBOOKS = {
    "nf4": Codebook(_NF4_LEVELS, tuple(range(16)), zero=7),
    # Of the zeros, the one with the sign is the upper: a positive weight that rounds to it takes 8.
    "fp4": Codebook(_FP4_LEVELS, (11, 10, 13, 12, 15, 14, 9, 0, 8, 1, 6, 7, 4, 5, 2, 3), zero=0),
    "int4": Codebook(_INT4_LEVELS, tuple(range(16)), zero=8),
}
"""The 4-bit formats, by name."""

INT8_LARGEST = 127
"""The largest 8-bit code: symmetric, so that -128 is not used."""

SMALLEST_SCALE = 1e-38
"""A block's absmax is taken as at least this when dividing, so that a block of zeros is zeros."""

SMALLEST_NUMBER = 2.0**-149
"""The smallest positive float32, by which a row of zeros is divided."""

DYNAMIC_BLOCK = 256
"""Scales that share one second-level scale in double quantisation."""

DYNAMIC_CELLS = 65536
"""Equal cells that [-1, 1] is cut into; all values of a cell take the level nearest its center."""


def _dynamic_levels(*, signed: bool) -> Tensor:
    """Return an 8-bit dynamic map, ascending float32: -0.99297 to 1, or 0 to 1 if not `signed`.

    Decade e in 0..6 has 2^e levels of either sign, or 2^(e + 1) unsigned ones, in the middle of as
    many equal parts of [0.1, 1] times 10^(e - 6); 0 and 1 complete the 256. All arithmetic is
    float32: in double precision some levels would come out one unit in the last place apart.
    """
    magnitudes: list[Tensor] = []
    for exponent in range(7):
        parts = 2**exponent if signed else 2 ** (exponent + 1)
        edges = torch.linspace(0.1, 1, parts + 1, dtype=torch.float32)
        magnitudes.append(10 ** (exponent - 6) * ((edges[:-1] + edges[1:]) / 2))
    positive = torch.cat(magnitudes)
    negative = -positive if signed else positive[:0]
    return torch.cat([negative, positive, torch.tensor([0.0, 1.0])]).sort().values


DYNAMIC_LEVELS = _dynamic_levels(signed=True)
"""The value of each 8-bit code, in units of the second-level scale; ascending."""

DYNAMIC_UNSIGNED_LEVELS = _dynamic_levels(signed=False)
"""The same for numbers that are never negative; ascending."""
