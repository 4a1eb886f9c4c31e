"""Construction of quantised layers from a recipe's `quant` section."""

from __future__ import annotations

import torch
from torch import Tensor

from etude.tuning.config.sections.quant import QuantSpec
from etude.tuning.quant.block import BlockLinear
from etude.tuning.quant.int8 import Int8Linear
from etude.tuning.quant.linear import CodedLinear


def layer_class(quant: QuantSpec) -> type[CodedLinear]:
    """Return the layer class for `quant`; `native` and `none` have none."""
    if quant.kind in ("native", "none"):
        raise ValueError(f"quant.kind: {quant.kind} does not quantise a weight")
    return Int8Linear if quant.kind == "int8" else BlockLinear


def quantized(
    weight: Tensor, quant: QuantSpec, compute_dtype: torch.dtype, bias: Tensor | None = None
) -> CodedLinear:
    """Return a layer with `weight`, (out, in), quantised.

    Raises:
        ModelError: the weight contains NaN or infinity.
    """
    return layer_class(quant).from_weight(weight, quant, compute_dtype, bias)


def empty_quantized(
    in_features: int,
    out_features: int,
    quant: QuantSpec,
    compute_dtype: torch.dtype,
    bias: Tensor | None = None,
    *,
    device: torch.device | None = None,
) -> CodedLinear:
    """Return a layer on `device` to fill with `fill_rows`, without the whole weight in memory."""
    make = layer_class(quant)
    return make.empty(in_features, out_features, quant, compute_dtype, bias, device=device)


def quantized_bytes(in_features: int, out_features: int, quant: QuantSpec) -> int:
    """Return the size in bytes of a quantised weight, without allocating it."""
    make = layer_class(quant)
    return make(in_features, out_features, quant, torch.float32, device="meta").quantized_bytes


def requantized(weight: Tensor, quant: QuantSpec) -> Tensor:
    """Quantise `weight`, (out, in), and return it decoded, float32."""
    return quantized(weight, quant, torch.float32).dequantize(torch.float32)
