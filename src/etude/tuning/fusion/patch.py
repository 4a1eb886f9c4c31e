"""Running a model's decoder layers by the fused step, inside a block.

Inside `fused_layers(model)` each decoder layer of a known kind runs by `decoder_layer` where that
computes the same thing, and by its own code elsewhere. What holds today may not tomorrow: adapters
are switched, dropout comes with training mode. So `eligibility` is asked whenever a layer runs.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from torch import Tensor

from etude.tuning.fusion.decoder_layer import decoder_layer
from etude.tuning.fusion.eligibility import decoder_layers, describe_layer
from etude.tuning.kernels.fused import how


@dataclass(frozen=True)
class Fusion:
    """How many of a model's layers run fused in its present mode, and why not all."""

    fused: int
    layers: int
    reason: str | None
    """Why not all are, in words; None: all are."""
    by: str = "plain PyTorch"
    """What computes those that are."""

    def __str__(self) -> str:
        """Return one line for people."""
        if self.reason is None:
            return f"{self.fused} fused decoder layers, {self.by}"
        return f"{self.fused} of {self.layers} decoder layers fused: {self.reason}"


@contextmanager
def fused_layers(model: Any) -> Generator[Fusion]:
    """Let the decoder layers that can be fused run so inside the block.

    Only packed rows do: a call that names no `segment_lengths` takes the layer's own code. The
    count is of the layers that can be fused as the model stands: its mode, its active adapters.
    """
    layers = decoder_layers(model)
    # An evaluation in the middle of training finds its layers patched already.
    unpatched = [layer for layer in layers if "forward" not in vars(layer)]
    fusion = _count(layers)
    try:
        for layer in unpatched:
            layer.forward = partial(_forward, layer, layer.forward)
        yield fusion
    finally:
        for layer in unpatched:
            del layer.forward


def _count(layers: list[Any]) -> Fusion:
    if not layers:
        return Fusion(0, 0, "this kind of model has no decoder layer that is known")
    weights = [cast("Tensor", layer.input_layernorm.weight) for layer in layers]
    found = [
        describe_layer(layer, weight.dtype, weight.device)
        for layer, weight in zip(layers, weights, strict=True)
    ]
    reasons = [one for one in found if isinstance(one, str)]
    reason = reasons[0] if reasons else None
    return Fusion(len(layers) - len(reasons), len(layers), reason, how(weights[0].device))


def _forward(
    layer: Any, plain: Callable[..., Tensor], hidden_states: Tensor, **given: Any
) -> Tensor:
    """Compute a layer in one step where that is the same thing, else by its own code."""
    lengths = cast("list[int] | None", given.get("segment_lengths"))
    positions = cast("tuple[Tensor, Tensor] | None", given.get("position_embeddings"))
    if hidden_states.shape[0] != 1 or lengths is None or positions is None:
        return plain(hidden_states, **given)
    described = describe_layer(layer, hidden_states.dtype, hidden_states.device)
    if isinstance(described, str):
        return plain(hidden_states, **given)
    # (1, T, width) as it comes from the model, in its dtype.
    cosine, sine = (angle[0].float().contiguous() for angle in positions)

    def compute(hidden_states: Tensor) -> Tensor:
        x = hidden_states[0].contiguous()
        return decoder_layer(x, described.layer, cosine, sine, lengths, described.factors)[None]

    if layer.gradient_checkpointing and layer.training:
        # The models do this around their own `forward`, which is not called.
        return layer._gradient_checkpointing_func(compute, hidden_states)
    return compute(hidden_states)
