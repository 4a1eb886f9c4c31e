"""Quantisation formats: bits per weight, error bounds, and the derivation of NF4's levels.

Trained weights are approximately normal within a block. A code is used best if each of its levels
is equally likely, so the levels are quantiles of the normal distribution, scaled so that the
outermost are -1 and 1. Quantiles alone would have no level at zero, the value of pruned and padded
weights; so the negative half gets 8 levels, the positive half 8 more, and both share the zero
(Dettmers et al. 2023, "QLoRA", section 3, eq. 4, and appendix E).
"""

from __future__ import annotations

from statistics import NormalDist

import torch
from torch import Tensor

from etude.tuning.config.sections.quant import QuantSpec
from etude.tuning.kernels.codebooks import CODEBOOKS, DYNAMIC_BLOCK, INT8_LARGEST

OUTERMOST_QUANTILE = 0.9677083
"""Probability that a normal weight lies below the largest level: 1 - (1/32 + 1/30) / 2."""


def derive_levels() -> Tensor:
    """Return NF4's 16 levels from their definition, float64, ascending."""

    def quantiles(count: int) -> list[float]:
        step = (OUTERMOST_QUANTILE - 0.5) / count
        normal = NormalDist()
        return [normal.inv_cdf(OUTERMOST_QUANTILE - i * step) for i in range(count)]

    levels = sorted([*(-level for level in quantiles(7)), 0.0, *quantiles(8)])
    return torch.tensor(levels, dtype=torch.float64) / levels[-1]


def bits_per_weight(quant: QuantSpec) -> float:
    """Return the bits per weight: 4.5 at block 64, 4.127 with double quantisation.

    Ignores the last, shorter blocks of a weight and its offset, and for `int8` the scale of
    a row.
    """
    if quant.kind == "int8":
        return 8.0
    if quant.kind not in CODEBOOKS:
        raise ValueError(f"quant.kind: {quant.kind} has no bits of its own")
    scale_bits = 8 + 32 / DYNAMIC_BLOCK if quant.double else 32
    return 4 + scale_bits / quant.block


def worst_error(absmax: Tensor, stored: Tensor, dtype: torch.dtype, kind: str = "nf4") -> Tensor:
    """Return an upper bound of |w - ŵ| for the weights of each scale.

    A weight is at most half the widest gap between levels, in units of absmax, from its level.
    Finding the level and multiplying it back takes four float32 roundings of numbers up to absmax.
    A scale that is itself quantised moves every level by at most the scale's own error, and the
    result is rounded once to its dtype.

    Args:
        absmax: true scales, float32 (blocks,), or (rows,) for int8.
        stored: scales used in decoding, likewise; equal without double quantisation.
        dtype: dtype of the decoded weight.
        kind: format of the codes.

    Returns:
        float64, of the shape of absmax.
    """
    true, used = absmax.double(), stored.double()
    half_gap = 0.5 / INT8_LARGEST if kind == "int8" else CODEBOOKS[kind].widest_half_gap
    coding = true * (half_gap + 4 * torch.finfo(torch.float32).eps / 2)
    # Below the normal range of the dtype rounding errors are absolute: half the smallest subnormal.
    rounding = used.abs() * torch.finfo(dtype).eps / 2 + torch.finfo(dtype).smallest_normal
    return coding + (true - used).abs() + rounding
