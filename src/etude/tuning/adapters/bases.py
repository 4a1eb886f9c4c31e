"""Supported base layers of adapters, each viewed as one matrix W (out, in).

    Linear, QuantLinear   y = x Wᵀ + b                        in: features
    Conv1D                the same, W stored as (in, out)     in: features (GPT-2's Linear)
    Conv1d, Conv2d        y = conv(x, W) + b                  in: channels × kernel, flattened
    Embedding             y = W[:, id]                        in: tokens; W stored as (in, out)
    StackedLinear         y = W_e x, e the expert of a row    in: features; a W for each expert

ΔW = s·B A therefore has the same meaning for all of them: A (r, in), B (out, r).
"""

from __future__ import annotations

import math
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from etude.core.errors import AdapterError
from etude.tuning.adapters.stacked import StackedLinear
from etude.tuning.quant.linear import QuantLinear

Base = nn.Linear | QuantLinear | Conv1D | nn.Conv1d | nn.Conv2d | nn.Embedding | StackedLinear
LinearLike = nn.Linear | QuantLinear | Conv1D

CAN_CARRY = "Linear, Embedding, Conv1d, Conv2d or Conv1D"


def is_base(module: nn.Module) -> bool:
    """Return whether `module` supports adapters."""
    return isinstance(module, Base)


def is_transposed(base: nn.Module) -> bool:
    """Return whether the base is, or was before it was quantised, a `Conv1D`."""
    return isinstance(base, Conv1D) or (isinstance(base, QuantLinear) and base.from_conv1d)


def refuse_unfit(name: str, base: Base) -> None:
    """Refuse a layer of a supported type with unsupported options.

    Raises:
        AdapterError: the layer is a grouped convolution, whose weight B A cannot update.
    """
    if isinstance(base, nn.Conv1d | nn.Conv2d) and base.groups > 1:
        raise AdapterError(
            f"{name} is a convolution with {base.groups} groups, which a low-rank adapter "
            "cannot update; leave it out of adapter.target_modules"
        )


def experts(base: Base) -> int:
    """Return how many matrices W the base has: one, or one for each expert."""
    return base.experts if isinstance(base, StackedLinear) else 1


def sizes(base: Base) -> tuple[int, int]:
    """Return (in, out), the sizes of W, or of each expert's."""
    if isinstance(base, Conv1D):
        return cast("Any", base).nx, cast("Any", base).nf
    if isinstance(base, nn.Conv1d | nn.Conv2d):
        return base.in_channels * math.prod(base.kernel_size), base.out_channels
    if isinstance(base, nn.Embedding):
        return base.num_embeddings, base.embedding_dim
    return base.in_features, base.out_features


def device(base: Base) -> torch.device:
    """Return the device of the weight."""
    return next(iter([*base.parameters(), *base.buffers()])).device


def compute_dtype(base: Base) -> torch.dtype:
    """Return the dtype that the base's product is computed in."""
    return base.compute_dtype if isinstance(base, QuantLinear) else base.weight.dtype


def bias(base: Base) -> Tensor | None:
    """Return the bias, (out,), or None."""
    if isinstance(base, nn.Embedding | StackedLinear):
        return None
    return cast("Tensor | None", base.bias)


@contextmanager
def other_bias(base: Base, vector: Tensor) -> Generator[None]:
    """Context manager: let the base compute with another bias, (out,), detached."""
    layer: Any = base
    held = layer.bias
    value = vector.detach().to(held.dtype)
    layer.bias = nn.Parameter(value, requires_grad=False) if _is_parameter(base) else value
    try:
        yield
    finally:
        layer.bias = held


def _is_parameter(base: Base) -> bool:
    return "bias" in dict(base.named_parameters(recurse=False))


@torch.no_grad()
def read_matrix(base: Base) -> Tensor:
    """Return a copy of W, (out, in) float32, dequantised if necessary; (E, out, in) of experts."""
    if isinstance(base, QuantLinear):
        return base.dequantize(torch.float32)
    if isinstance(base, StackedLinear):
        return base.matrices().detach().to(torch.float32, copy=True)
    weight = base.weight.detach().to(torch.float32, copy=True)
    if isinstance(base, Conv1D | nn.Embedding):
        return weight.T.contiguous()
    return weight.flatten(1)


def as_stored(base: Base, matrix: Tensor) -> Tensor:
    """Reshape W (out, in), or a change of it, to the base's storage shape."""
    if isinstance(base, Conv1D | nn.Embedding):
        return matrix.T
    if isinstance(base, nn.Conv1d | nn.Conv2d):
        return matrix.view(base.weight.shape)
    return base.as_stored(matrix) if isinstance(base, StackedLinear) else matrix


@torch.no_grad()
def write_matrix(base: Base, matrix: Tensor) -> None:
    """Overwrite W, (out, in) float32, rounded to the base's dtype or requantised.

    Raises:
        AdapterError: the base holds GGUF blocks, which are read-only.
    """
    if isinstance(base, QuantLinear):
        base.overwrite(matrix)
        return
    base.weight.copy_(as_stored(base, matrix))


def weight_for_product(base: LinearLike) -> Tensor:
    """Return W, (out, in), in the compute dtype; a view if the base is dense."""
    if isinstance(base, QuantLinear):
        return base.weight_for_compute()
    return cast("Any", base.weight).T if isinstance(base, Conv1D) else base.weight


def without_bias(base: Base, x: Tensor, y: Tensor | None = None) -> Tensor:
    """Return base(x) without its bias; `y` is base(x), if already computed."""
    plain = cast("Tensor", base(x)) if y is None else y
    b = bias(base)
    return plain if b is None else plain - along_channels(base, b)


def along_channels(base: Base, vector: Tensor) -> Tensor:
    """Return `vector`, (out,), shaped to broadcast over the base's output."""
    if isinstance(base, nn.Conv1d | nn.Conv2d):
        return vector.view(-1, *([1] * len(base.kernel_size)))
    return vector
