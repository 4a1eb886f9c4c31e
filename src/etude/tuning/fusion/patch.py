"""Patching of a model's layers to run fused inside a `with` block.

Inside `fused_layers(model)` each supported layer of a decoder or an encoder runs by `decoder_layer`
or `encoder_layer` if that is equivalent, and by its own code otherwise. Eligibility can change
between calls (adapters are switched, dropout depends on training mode), so it is checked whenever a
layer runs.
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
from etude.tuning.fusion.encoder_eligibility import (
    describe_encoder_layer,
    encoder_layers,
    first_weight,
)
from etude.tuning.fusion.encoder_layer import encoder_layer
from etude.tuning.fusion.read_rows import requested
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
    kind: str = "decoder"
    """`decoder` or `encoder`."""
    ran: dict[int, str | None] = field(default_factory=dict[int, str | None])
    """By its number, why a layer did not run fused when it last ran, or None: it did."""

    def __str__(self) -> str:
        """Return a one-line summary for the user: of what ran, once something has."""
        fused, reason = self.fused, self.reason
        if self.ran:
            reasons = [why for why in self.ran.values() if why is not None]
            fused, reason = len(self.ran) - len(reasons), reasons[0] if reasons else None
        if reason is None:
            return f"{fused} fused {self.kind} layers, {self.by}"
        return f"{fused} of {self.layers} {self.kind} layers fused: {reason}"


@contextmanager
def fused_layers(model: Any) -> Generator[Fusion]:
    """Context manager: run decoder and encoder layers fused where possible.

    Fused layers require packed rows: a call without `segment_lengths` runs the layer's own code.
    The count refers to the model's current mode and active adapters; `Fusion.ran` says what was
    true when the layers ran.
    """
    decoders, encoders = decoder_layers(model), encoder_layers(model)
    forwards = [(layer, _decoder_forward) for layer in decoders]
    forwards += [(layer, _encoder_forward) for layer in encoders]
    # During training, an evaluation finds the layers already patched.
    unpatched = {
        number: pair for number, pair in enumerate(forwards) if "forward" not in vars(pair[0])
    }
    fusion = _count(decoders, encoders)
    try:
        for number, (layer, run) in unpatched.items():
            note = partial(fusion.ran.__setitem__, number)
            layer.forward = partial(run, layer, layer.forward, note)
        yield fusion
    finally:
        for layer, _ in unpatched.values():
            del layer.forward


def _count(decoders: list[Any], encoders: list[Any]) -> Fusion:
    weights = [cast("Tensor", layer.input_layernorm.weight) for layer in decoders]
    found: list[Any] = [
        describe_layer(layer, weight.dtype, weight.device)
        for layer, weight in zip(decoders, weights, strict=True)
    ]
    more = [first_weight(layer) for layer in encoders]
    found += [
        describe_encoder_layer(layer, weight.dtype, weight.device)
        for layer, weight in zip(encoders, more, strict=True)
    ]
    if not found:
        return Fusion(0, 0, "the model has no supported layers")
    reasons = [one for one in found if isinstance(one, str)]
    return Fusion(
        len(found) - len(reasons),
        len(found),
        reasons[0] if reasons else None,
        how([*weights, *more][0].device),
        "decoder" if decoders else "encoder",
    )


def _decoder_forward(
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

    return _checkpointed(layer, compute, hidden_states)


def _encoder_forward(
    layer: Any,
    plain: Callable[..., Tensor],
    note: Callable[[str | None], None],
    hidden_states: Tensor,
    attention_mask: Tensor | None = None,
    *rest: Any,
    **given: Any,
) -> Tensor:
    """Run a layer fused if eligible, otherwise by its own code."""
    lengths = cast("list[int] | None", given.get("segment_lengths"))
    if hidden_states.shape[0] != 1 or lengths is None or attention_mask is not None:
        note("rows are not packed")
        return plain(hidden_states, attention_mask, *rest, **given)
    described = describe_encoder_layer(layer, hidden_states.dtype, hidden_states.device)
    note(described if isinstance(described, str) else None)
    if isinstance(described, str):
        return plain(hidden_states, attention_mask, *rest, **given)

    request = requested(layer)
    rows = None if request is None else request.rows
    if request is not None:
        request.computed = True

    def compute(hidden_states: Tensor) -> Tensor:
        x = hidden_states[0].contiguous()
        return encoder_layer(x, described.layer, lengths, described.factors, rows)[None]

    return _checkpointed(layer, compute, hidden_states)


def _checkpointed(layer: Any, compute: Callable[[Tensor], Tensor], states: Tensor) -> Tensor:
    """Compute a layer; with gradient checkpointing, again in the backward pass."""
    if layer.gradient_checkpointing and layer.training:
        # The models do this in their own `forward`, which is bypassed here.
        return layer._gradient_checkpointing_func(compute, states)
    return compute(states)
