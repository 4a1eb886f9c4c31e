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

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from etude.tuning.config.sections.adapter import FactorSpec
from etude.tuning.quant.uniform import dequantize_uniform, quantize_uniform


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


@torch.no_grad()
def round_factors(model: nn.Module, spec: FactorSpec) -> None:
    """Round every LoRA factor of `model` in place, to what will be stored.

    After training without rounding (PTQ) this is where the loss comes; after QAT the model computes
    what it did. Rounding again changes nothing.
    """
    for adapter in _loras(model):
        adapter.lora_A.copy_(round_factor(adapter.lora_A, spec))
        adapter.lora_B.copy_(round_factor(adapter.lora_B.T, spec).T)


def _loras(model: Any) -> Iterator[Any]:
    """Yield what has factors to round; LoRA itself rounds by this module, so by their names."""
    for module in model.modules():
        if hasattr(module, "rounding"):
            yield module
