"""Patching of a model's decoder layers to run fused inside a `with` block.

Inside `fused_layers(model)` each supported decoder layer runs by `decoder_layer` if that is
equivalent, and by its own code otherwise. Eligibility can change between calls (adapters are
switched, dropout depends on training mode), so it is checked whenever a layer runs.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

from torch import Tensor

from etude.tuning.fusion.decoder_layer import decoder_layer
from etude.tuning.fusion.eligibility import decoder_layers, describe_layer
from etude.tuning.kernels.fused import how


@dataclass(frozen=True)
class Fusion:
    """Number of a model's layers that run fused in its current mode."""

    fused: int
    layers: int
    reason: str | None
    """Why some layers are not fused; None if all are."""
    by: str = "plain PyTorch"
    """Implementation of the fused layers."""
    ran: dict[int, str | None] = field(default_factory=dict[int, str | None])
    """By its number, why a layer did not run fused when it last ran, or None: it did."""

    def __str__(self) -> str:
        """Return a one-line summary for the user: of what ran, once something has."""
        fused, reason = self.fused, self.reason
        if self.ran:
            reasons = [why for why in self.ran.values() if why is not None]
            fused, reason = len(self.ran) - len(reasons), reasons[0] if reasons else None
        if reason is None:
            return f"{fused} fused decoder layers, {self.by}"
        return f"{fused} of {self.layers} decoder layers fused: {reason}"


@contextmanager
def fused_layers(model: Any) -> Generator[Fusion]:
    """Context manager: run decoder layers fused where possible.

    Fused layers require packed rows: a call without `segment_lengths` runs the layer's own code.
    The count refers to the model's current mode and active adapters; `Fusion.ran` says what was
    true when the layers ran.
    """
    layers = decoder_layers(model)
    # During training, an evaluation finds the layers already patched.
    unpatched = {n: layer for n, layer in enumerate(layers) if "forward" not in vars(layer)}
    fusion = _count(layers)
    try:
        for number, layer in unpatched.items():
            note = partial(fusion.ran.__setitem__, number)
            layer.forward = partial(_forward, layer, layer.forward, note)
        yield fusion
    finally:
        for layer in unpatched.values():
            del layer.forward


def _count(layers: list[Any]) -> Fusion:
    if not layers:
        return Fusion(0, 0, "the model has no supported decoder layers")
    weights = [cast("Tensor", layer.input_layernorm.weight) for layer in layers]
    found = [
        describe_layer(layer, weight.dtype, weight.device)
        for layer, weight in zip(layers, weights, strict=True)
    ]
    reasons = [one for one in found if isinstance(one, str)]
    reason = reasons[0] if reasons else None
    return Fusion(len(layers) - len(reasons), len(layers), reason, how(weights[0].device))


def _forward(
    layer: Any,
    plain: Callable[..., Tensor],
    note: Callable[[str | None], None],
    hidden_states: Tensor,
    **given: Any,
) -> Tensor:
    """Run a layer fused if eligible, otherwise by its own code."""
    lengths = cast("list[int] | None", given.get("segment_lengths"))
    positions = cast("tuple[Tensor, Tensor] | None", given.get("position_embeddings"))
    if hidden_states.shape[0] != 1 or lengths is None or positions is None:
        note("rows are not packed")
        return plain(hidden_states, **given)
    described = describe_layer(layer, hidden_states.dtype, hidden_states.device)
    note(described if isinstance(described, str) else None)
    if isinstance(described, str):
        return plain(hidden_states, **given)
    # (1, T, width) as it comes from the model, in its dtype.
    cosine, sine = (angle[0].float().contiguous() for angle in positions)

    def compute(hidden_states: Tensor) -> Tensor:
        x = hidden_states[0].contiguous()
        return decoder_layer(x, described.layer, cosine, sine, lengths, described.factors)[None]

    if layer.gradient_checkpointing and layer.training:
        # The models do this in their own `forward`, which is bypassed here.
        return layer._gradient_checkpointing_func(compute, hidden_states)
    return compute(hidden_states)
