"""Eligibility of decoder layers for the fused code, in training and generation.

`describe_layer` returns the weights of a layer, or the reason why the fused code does not support
it. Supported are the layers of Llama, Mistral and Qwen2: RMS norms, rotary positions, grouped
heads, SwiGLU. The layer's modules are inspected, not its configuration, because they are what
runs: adapters are switched, dropout depends on the mode, and any module may have been replaced, for
example by a `ModuleToSave`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers.activations import SiLUActivation

from etude.tuning.adapters import bases
from etude.tuning.adapters.bases import sizes
from etude.tuning.adapters.layer import AdaptedLayer
from etude.tuning.adapters.modules_to_save import ModuleToSave
from etude.tuning.fusion.decoder_layer import DecoderLayer, Norm
from etude.tuning.fusion.projections import Factors, Projection
from etude.tuning.kernels.fused import HEAD_MULTIPLE, dtypes, obstacle
from etude.tuning.kernels.heads import Heads
from etude.tuning.quant.linear import QuantLinear

_FAMILIES = {
    f"transformers.models.{module}.modeling_{module}": family
    for module, family in (("llama", "Llama"), ("mistral", "Mistral"), ("qwen2", "Qwen2"))
}

_MISTRAL = "transformers.models.mistral.modeling_mistral"

_ROPE_TYPES = ("default", "linear", "llama3", "yarn")
"""Rotary embedding types whose angles do not depend on the sequence length."""

_RECORDER = "transformers.utils.output_capturing"
"""Module of the hooks that transformers registers on layers and attentions of every model; they
have no effect unless hidden states or attention weights are requested."""


@dataclass(frozen=True)
class Description:
    """Current weights and adapter factors of a decoder layer."""

    layer: DecoderLayer
    factors: list[Factors | None]
    """A and B of each projection, in the order of `DecoderLayer.projections`."""


def decoder_layers(model: nn.Module) -> list[Any]:
    """Return the model's decoder layers of supported types, in order."""
    return [module for module in model.modules() if _is_part(module, "DecoderLayer")]


def generation_layers(model: Any) -> list[Any] | None:
    """Return the layers, if embedding, layers and norm in sequence are the whole model.

    None: the model has a different structure, so that running its layers alone may not be
    equivalent to running it.
    """
    body = model.base_model
    if not _is_part(body, "Model") or not _is_part(plain(body.norm), "RMSNorm"):
        return None
    layers = list(cast("nn.ModuleList", body.layers))
    own = (model, body, body.norm, body.rotary_emb, *layers)
    rope = cast("dict[str, Any]", getattr(model.config, "rope_parameters", None) or {})
    if (
        rope.get("rope_type", "default") not in _ROPE_TYPES
        or not _is_part(body.rotary_emb, "RotaryEmbedding")
        or any(hooked(module) for module in own)
        or not all(_is_part(layer, "DecoderLayer") for layer in layers)
    ):
        return None
    return layers


def describe_layer(layer: Any, dtype: torch.dtype, device: torch.device) -> Description | str:
    """Return a layer's current weights, or why the fused code does not support it.

    Args:
        layer: one of `decoder_layers`.
        dtype: dtype of the hidden states.
        device: device of the hidden states.
    """
    attention, mlp = layer.self_attn, layer.mlp
    if why := obstacle(device):
        return why
    if torch.is_autocast_enabled(device.type):
        return "autocast is on"
    if dtype not in dtypes(device):
        return f"there are no kernels for {dtype}"
    for part, kind in ((attention, "Attention"), (mlp, "MLP")):
        if not _is_part(part, kind):
            return f"the model's {kind} was replaced by a {type(part).__name__}"
    if not isinstance(mlp.act_fn, SiLUActivation | nn.SiLU):
        return f"the activation {attention.config.hidden_act} is not fused"
    if attention.head_dim % HEAD_MULTIPLE:
        return f"the head width {attention.head_dim} is not a multiple of {HEAD_MULTIPLE}"
    if attention.training and attention.attention_dropout:
        return "dropout on the attention weights is active"
    norms = layer.input_layernorm, layer.post_attention_layernorm
    for norm in norms:
        if not _is_part(plain(norm), "RMSNorm"):
            return f"a {type(plain(norm)).__name__} is not fused"
        if norm.weight.dtype != dtype:
            return f"norms in {norm.weight.dtype} for hidden states in {dtype} are not fused"
    if any(hooked(module) for module in (attention, mlp, mlp.act_fn, *norms)):
        return "a hook is registered on one of its modules"
    found: list[tuple[Projection, Factors | None]] = []
    for module in _linears(layer):
        projection = projection_of(module, dtype, every_kind=True)
        if isinstance(projection, str):
            return projection
        found.append(projection)
    # Inference mode needs no gradients.
    if not torch.is_inference_mode_enabled() and any(
        parameter.requires_grad
        for module in (*norms, *(projection.base for projection, _ in found))
        for parameter in cast("nn.Module", module).parameters()
    ):
        return "weights of the base are trained"
    q, k, v, output, gate, up, down = (projection for projection, _ in found)
    width = int(attention.head_dim)
    query_heads, key_heads = (sizes(one.base)[1] // width for one in (q, k))
    heads = Heads(query_heads, key_heads, width, attention.scaling, _window(attention))
    described = DecoderLayer(
        attention_norm=_norm(layer.input_layernorm),
        qkv=(q, k, v),
        output=output,
        mlp_norm=_norm(layer.post_attention_layernorm),
        gate_up=(gate, up),
        down=down,
        heads=heads,
    )
    return Description(described, [factors for _, factors in found])


def _is_part(module: nn.Module, kind: str) -> bool:
    """Return whether a module is of a known family's own class, not of a subclass of it."""
    family = _FAMILIES.get(type(module).__module__)
    return family is not None and type(module).__name__ == f"{family}{kind}"


def plain(module: nn.Module) -> nn.Module:
    """Return a module, or the original of one that is trained whole."""
    return module.base if isinstance(module, ModuleToSave) else module


def _linears(layer: Any) -> Iterator[Any]:
    attention, mlp = layer.self_attn, layer.mlp
    yield from (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj)
    yield from (mlp.gate_proj, mlp.up_proj, mlp.down_proj)


def _window(attention: Any) -> int | None:
    """Return the sliding window of this layer (Qwen2) or of the model (Mistral); Llama has none.

    A Llama's attention passes none on, so a `sliding_window` in its config.json has no effect.
    """
    if hasattr(attention, "sliding_window"):
        return attention.sliding_window
    if type(attention).__module__ == _MISTRAL:
        return getattr(attention.config, "sliding_window", None)
    return None


def _norm(module: Any) -> Norm:
    return Norm(cast("Tensor", module.weight), module.variance_epsilon)


def projection_of(
    module: Any, dtype: torch.dtype, *, every_kind: bool = False
) -> tuple[Projection, Factors | None] | str:
    """Return a projection and the factors of its active adapter, or why it is not fused.

    Args:
        module: the linear layer, adapted or not.
        dtype: of the hidden states.
        every_kind: whether the fused layer computes magnitudes and dropout as well as factors.
    """
    base: nn.Module = module.base if isinstance(module, AdaptedLayer) else module
    if type(base) is not nn.Linear and not isinstance(base, QuantLinear):
        return f"a {type(base).__name__} is not a linear layer"
    if hooked(module) or hooked(base):
        return "a hook is registered on one of its modules"
    held = base.compute_dtype if isinstance(base, QuantLinear) else base.weight.dtype
    if held != dtype:
        return f"weights in {held} with hidden states in {dtype} are not fused"
    if not isinstance(module, AdaptedLayer):
        return Projection(base, None), None
    if module.trained_bias() is not None:
        return "biases are trained"
    if module.rows is not None:
        return "rows of the batch use different adapters"
    chosen = module.chosen()
    if not chosen:
        return Projection(base, None), None
    adapter = chosen[0]
    if len(chosen) > 1:
        return "several adapters are active"
    if hooked(adapter):
        return "a hook is registered on one of its modules"
    factors = adapter.plain_factors()
    if factors is not None:
        return Projection(base, adapter.scaling), factors
    on_processor = bases.device(base).type == "cpu"
    if adapter.drops and not (every_kind and on_processor):
        return "dropout on the adapters' input is active"
    parts = adapter.fused_parts(base) if every_kind else None
    if parts is None:
        return f"{type(adapter).__name__} adapters are not fused"
    dropout = adapter.dropout if adapter.drops else 0.0
    return Projection(base, adapter.scaling, parts[1], dropout), parts[0]


def hooked(module: nn.Module) -> bool:
    """Return whether a module has forward or backward hooks."""
    inner = vars(module)
    if inner["_backward_hooks"] or inner["_backward_pre_hooks"] or inner["_forward_pre_hooks"]:
        return True
    return any(hook.__module__ != _RECORDER for hook in inner["_forward_hooks"].values())
