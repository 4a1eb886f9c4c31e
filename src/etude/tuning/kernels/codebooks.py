"""The two value tables that weights and their scales are rounded to.

NF4 has 16 levels in [-1, 1], placed so that each is used equally often by normally distributed
weights, with an exact zero and both ends (Dettmers et al. 2023, "QLoRA", section 3 and
appendix E). The 8-bit dynamic map has 256 levels whose spacing grows with their magnitude, from
5.5e-7 to 1 (Dettmers 2016, "8-Bit Approximations for Parallelism in Deep Learning"); it holds
the scales of the blocks in double quantisation.

Both tables, as well as the rule for ties, are those of bitsandbytes, so that a weight quantised
here is the same bytes as one quantised there.
"""

from __future__ import annotations

import torch
from torch import Tensor

NF4_LEVELS = torch.tensor(
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
"""The value of each 4-bit code, in units of its block's absmax; ascending."""

NF4_MIDPOINTS = (NF4_LEVELS[:-1] + NF4_LEVELS[1:]) / 2
"""Where one code ends and the next begins; a value on a midpoint takes the lower code."""

NF4_ZERO = 7
"""The code of 0.0; it fills the last nibble when the number of weights is odd."""

SMALLEST_SCALE = 1e-38
"""A block's absmax is taken as at least this when dividing, so that a block of zeros is zeros."""

DYNAMIC_BLOCK = 256
"""Scales that share one second-level scale in double quantisation."""

DYNAMIC_CELLS = 65536
"""Equal cells that [-1, 1] is cut into; all values of a cell take the level nearest its center."""


def _dynamic_levels() -> Tensor:
    """Return the 8-bit dynamic map: ascending float32, -0.99297 to 1.

    Decade e in 0..6 has 2^e levels of either sign, in the middle of 2^e equal parts of
    [0.1, 1] times 10^(e - 6); 0 and 1 complete the 256. All arithmetic is float32: in double
    precision some levels would come out one unit in the last place apart.
    """
    magnitudes: list[Tensor] = []
    for exponent in range(7):
        edges = torch.linspace(0.1, 1, 2**exponent + 1, dtype=torch.float32)
        magnitudes.append(10 ** (exponent - 6) * ((edges[:-1] + edges[1:]) / 2))
    positive = torch.cat(magnitudes)
    return torch.cat([-positive, positive, torch.tensor([0.0, 1.0])]).sort().values


DYNAMIC_LEVELS = _dynamic_levels()
"""The value of each 8-bit code, in units of the second-level scale; ascending."""
