"""Which decoder layers are computed as one step, and how a model is told.

Inside `fused_layers(model)` each decoder layer that is known (Llama's, Mistral's and Qwen2's:
RMS norms, rotary positions, grouped heads, SwiGLU) and holds nothing that the fused step does not
compute runs by `decoder.decoder_layer`; every other layer runs as its own code has it. What holds
today may not tomorrow: adapters are switched, dropout comes with training mode. So a layer is
looked at whenever it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from etude.tuning.adapters.layer import AdaptedLayer
from etude.tuning.fusion.decoder_layer import (
    DecoderLayer,
    Factors,
    Norm,
    Projection,
    decoder_layer,
)
from etude.tuning.kernels.fused import HEAD_MULTIPLE, Heads, dtypes, how, obstacle
from etude.tuning.quant.linear import QuantLinear

_KNOWN = {
    ("transformers.models.llama.modeling_llama", "LlamaDecoderLayer"),
    ("transformers.models.mistral.modeling_mistral", "MistralDecoderLayer"),
    ("transformers.models.qwen2.modeling_qwen2", "Qwen2DecoderLayer"),
}


@dataclass(frozen=True)
class Fusion:
    """How many of a model's layers are fused, and why not all, for people."""

    fused: int
    layers: int
    reason: str | None
    """Why not all are; None: all are."""
    by: str = "plain PyTorch"
    """What computes those that are."""

    def __str__(self) -> str:
        """Say it in a line."""
        if self.reason is None:
            return f"{self.fused} fused decoder layers, {self.by}"
        return f"{self.fused} of {self.layers} decoder layers fused: {self.reason}"


@contextmanager
def fused_layers(model: Any) -> Generator[Fusion]:
    """Let the decoder layers that can be fused run so inside the block.

    Only packed rows do: a call that names no `segment_lengths` takes the layer's own code.
    """
    layers = decoder_layers(model)
    device = layers[0].input_layernorm.weight.device if layers else torch.device("cpu")
    reason = obstacle(device)
    able = [layer for layer in layers if reason is None and _unfit(layer) is None]
    # An evaluation in the middle of training finds its layers fused already.
    told = [layer for layer in able if "forward" not in vars(layer)]
    if reason is None and len(able) < len(layers):
        reason = next(why for layer in layers if (why := _unfit(layer)) is not None)
    if not layers:
        reason = "this kind of model has no decoder layer that is known"
    try:
        for layer in told:
            layer.forward = partial(_forward, layer, layer.forward)
        yield Fusion(len(able), len(layers), reason, how(device))
    finally:
        for layer in told:
            del layer.forward


def decoder_layers(model: nn.Module) -> list[Any]:
    """Return the model's decoder layers of a known kind, in order."""
    return [
        module
        for module in model.modules()
        if (type(module).__module__, type(module).__name__) in _KNOWN
    ]


def _forward(
    layer: Any, plain: Callable[..., Tensor], hidden_states: Tensor, **given: Any
) -> Tensor:
    """Compute a layer in one step where that is the same thing, else by its own code."""
    lengths = cast("list[int] | None", given.get("segment_lengths"))
    positions = cast("tuple[Tensor, Tensor] | None", given.get("position_embeddings"))
    chosen = described(layer, hidden_states) if hidden_states.shape[0] == 1 else None
    if chosen is None or lengths is None or positions is None:
        return plain(hidden_states, **given)
    description, factors = chosen
    # (1, T, width) as it comes from the model, in its dtype.
    cosine, sine = (angle[0].float().contiguous() for angle in positions)

    def compute(hidden_states: Tensor) -> Tensor:
        x = hidden_states[0].contiguous()
        return decoder_layer(x, description, cosine, sine, lengths, factors)[None]

    if layer.gradient_checkpointing and layer.training:
        # The models do this around their own `forward`, which is not called.
        return layer._gradient_checkpointing_func(compute, hidden_states)
    return compute(hidden_states)


def _unfit(layer: Any) -> str | None:
    """Return what about a layer of a known kind cannot be fused, whatever it is given; or None."""
    attention, config = layer.self_attn, layer.self_attn.config
    if config.hidden_act not in ("silu", "swish"):
        return f"the activation {config.hidden_act} is not fused"
    if attention.head_dim % HEAD_MULTIPLE:
        return f"heads of {attention.head_dim} are no multiple of {HEAD_MULTIPLE}"
    norms = layer.input_layernorm, layer.post_attention_layernorm
    for norm in norms:
        if norm.weight.dtype not in dtypes(norm.weight.device):
            return f"there are no kernels for {norm.weight.dtype}"
    for part in _linears(layer):
        base = part.base if isinstance(part, AdaptedLayer) else part
        if not isinstance(base, nn.Linear | QuantLinear):
            return f"a {type(base).__name__} is no linear layer"
    frozen = [*norms, *(p.base if isinstance(p, AdaptedLayer) else p for p in _linears(layer))]
    if any(p.requires_grad for part in frozen for p in part.parameters()):
        return "weights of the base are trained"
    return None


def _linears(layer: Any) -> tuple[Any, ...]:
    attention, mlp = layer.self_attn, layer.mlp
    return (
        attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj,
        mlp.gate_proj, mlp.up_proj, mlp.down_proj,
    )  # fmt: skip


def described(layer: Any, x: Tensor) -> tuple[DecoderLayer, list[Factors | None]] | None:
    """Return what a layer computes with now, and its factors; None where it cannot be fused now."""
    attention = layer.self_attn
    training_dropout = attention.attention_dropout if attention.training else 0.0
    if training_dropout or layer.input_layernorm.weight.dtype != x.dtype or _autocast(x):
        return None
    found = [_projection(part, x.dtype) for part in _linears(layer)]
    if any(one is None for one in found):
        return None
    known = cast("list[tuple[Projection, Factors | None]]", found)
    q, k, v, o, gate, up, down = (projection for projection, _ in known)
    key_heads = k.base.out_features // attention.head_dim
    query_heads = q.base.out_features // attention.head_dim
    description = DecoderLayer(
        attention_norm=_norm(layer.input_layernorm),
        qkv=(q, k, v),
        output=o,
        mlp_norm=_norm(layer.post_attention_layernorm),
        gate_up=(gate, up),
        down=down,
        heads=Heads(
            query_heads,
            key_heads,
            attention.head_dim,
            attention.scaling,
            _window(attention),
        ),
    )
    return description, [factors for _, factors in known]


def _window(attention: Any) -> int | None:
    """Return how many positions a query sees: of this layer, or, as in Mistral, of the model."""
    if hasattr(attention, "sliding_window"):
        return attention.sliding_window
    return getattr(attention.config, "sliding_window", None)


def _norm(module: Any) -> Norm:
    return Norm(module.weight, module.variance_epsilon)


def _projection(module: Any, dtype: torch.dtype) -> tuple[Projection, Factors | None] | None:
    """Return a layer and its only active adapter's factors; None where it has more to it."""
    if module._forward_hooks or module._forward_pre_hooks:
        return None
    if not isinstance(module, AdaptedLayer):
        return (Projection(module, None), None) if _dtype(module) == dtype else None
    if module.rows is not None or _dtype(module.base) != dtype:
        return None
    base = cast("nn.Linear | QuantLinear", module.base)
    chosen = module.chosen()
    if not chosen:
        return Projection(base, None), None
    factors = chosen[0].plain_factors()
    if len(chosen) > 1 or factors is None:
        return None
    return Projection(base, chosen[0].scaling), factors


def _dtype(base: Any) -> torch.dtype:
    return base.compute_dtype if isinstance(base, QuantLinear) else base.weight.dtype


def _autocast(x: Tensor) -> bool:
    return torch.is_autocast_enabled(x.device.type) or obstacle(x.device) is not None
