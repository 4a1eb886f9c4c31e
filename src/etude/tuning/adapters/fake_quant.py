"""Fake quantisation of factors: ΔW ≈ Û V̂ᵀ, x̂ = round(s·x)/s, clipped to the range of k bits.

In this reading of "QLoRA", the adapter itself rather than the base is stored in few bits, so that
its file is small. Post-training quantisation (PTQ) rounds the factors once after training. In
quantisation-aware training (QAT) every forward pass uses the rounded factors, and the optimiser
updates the unrounded ones,

    ∂x̂/∂x := 1                                      (Bengio et al. 2013, "straight-through")

so the training loss is that of the stored adapter. A scale is shared by a whole factor, by one of
its r rank vectors (a row of A, a column of B), or by a block of them. The largest magnitude maps to
the largest code, so nothing is clipped, and the gradient passes everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from etude.tuning.config.sections.adapter import FactorSpec
from etude.tuning.quant.uniform import dequantize_uniform, quantize_uniform


def rounded(x: Tensor, spec: FactorSpec) -> Tensor:
    """Return x̂ with a straight-through gradient.

    Args:
        x: a factor with its rank vectors as rows, (r, n): A, or Bᵀ.
        spec: bits and granularity of the scales; `bits` is set.
    """
    return x + (round_factor(x.detach(), spec) - x).detach()


def round_factor(x: Tensor, spec: FactorSpec) -> Tensor:
    """Return x̂, (r, n) in the dtype of x."""
    assert spec.bits is not None
    codes, scales = quantize_uniform(x, spec.bits, spec.scale, spec.block)
    return dequantize_uniform(codes, scales, spec.scale, spec.block).to(x.dtype)


@torch.no_grad()
def round_factors(model: nn.Module, spec: FactorSpec) -> None:
    """Round every LoRA factor of `model` in place, to the values that will be stored.

    After PTQ this changes the loss; after QAT the model's outputs are unchanged. Rounding is
    idempotent.
    """
    for adapter in _loras(model):
        adapter.lora_A.copy_(round_factor(adapter.lora_A, spec))
        adapter.lora_B.copy_(round_factor(adapter.lora_B.T, spec).T)


def _loras(model: Any) -> Iterator[Any]:
    """Yield the LoRA adapters, found by attribute because LoRA imports this module."""
    for module in model.modules():
        if hasattr(module, "rounding"):
            yield module
