"""Quantised factors: ΔW ≈ Û V̂ᵀ, x̂ = round(s·x)/s, clipped to the range of k bits.

The second reading of "QLoRA": not the base but the adapter itself is held in few bits, so that it
is small to keep and to send. After training (PTQ) the factors are rounded once. In training (QAT)
every forward pass computes with the rounded factors while the step goes to the unrounded ones,

    ∂x̂/∂x := 1                                      (Bengio et al. 2013, "straight-through")

so that what is learnt is what will be stored. A scale is shared by a whole factor, by one of its r
rank vectors (a row of A, a column of B), or by a block of them. The largest magnitude is mapped to
the largest code, so nothing is clipped, and the gradient is passed everywhere.
"""

from __future__ import annotations

from torch import Tensor

from etude.tuning.quant.uniform import dequantize_uniform, quantize_uniform
from etude.tuning.specs import FactorSpec


def rounded(x: Tensor, spec: FactorSpec) -> Tensor:
    """Return x̂ with the gradient of x.

    Args:
        x: a factor with its rank vectors as rows, (r, n): A, or Bᵀ.
        spec: bits and what shares a scale; `bits` is set.
    """
    return x + (round_factor(x.detach(), spec) - x).detach()


def round_factor(x: Tensor, spec: FactorSpec) -> Tensor:
    """Return x̂, (r, n) in the dtype of x."""
    assert spec.bits is not None
    codes, scales = quantize_uniform(x, spec.bits, spec.scale, spec.block)
    return dequantize_uniform(codes, scales, spec.scale, spec.block).to(x.dtype)
