"""Eligibility of encoder layers for the fused code.

`describe_encoder_layer` returns the weights of a layer, or the reason why the fused code does not
support it. Supported are the layers of BERT and what is built alike (RoBERTa, XLM-RoBERTa,
CamemBERT, ELECTRA), and of DistilBERT: layer norms after the sums, biases, GELU, attention in both
directions. As with decoder layers (`eligibility`), modules are inspected, not a configuration.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers.activations import GELUActivation

from etude.tuning.adapters.bases import sizes
from etude.tuning.fusion.eligibility import hooked, plain, projection_of
from etude.tuning.fusion.encoder_layer import EncoderLayer, LayerNorm, Shares
from etude.tuning.fusion.projections import Factors, Projection
from etude.tuning.kernels.fused import HEAD_MULTIPLE, dtypes, obstacle
from etude.tuning.kernels.heads import Heads

_BERTS = {
    f"transformers.models.{module}.modeling_{module}": family
    for module, family in (
        ("bert", "Bert"),
        ("roberta", "Roberta"),
        ("xlm_roberta", "XLMRoberta"),
        ("camembert", "Camembert"),
        ("electra", "Electra"),
    )
}
_DISTILBERT = "transformers.models.distilbert.modeling_distilbert"


@dataclass(frozen=True)
class EncoderDescription:
    """Current weights and adapter factors of an encoder layer."""

    layer: EncoderLayer
    factors: list[Factors | None]
    """A and B of q, k, v, the output of attention, up and down."""


@dataclass(frozen=True)
class _Parts:
    """The modules of a layer, whatever its family calls them."""

    attention: Any
    linears: tuple[Any, ...]
    """q, k, v, the output of attention, up, down."""
    norms: tuple[Any, Any]
    """After attention, after the MLP."""
    activation: Any
    heads: int
    width: int
    dropouts: tuple[Any, Any, Any]
    """Of attention's weights, of its output (None: there is none), of the MLP's output."""
    inner: tuple[Any, ...]
    """Every module that is run in a layer and is not one of the above."""


def encoder_layers(model: nn.Module) -> list[Any]:
    """Return the model's encoder layers of supported types, in order."""
    return [module for module in model.modules() if _is_layer(module)]


def first_weight(layer: Any) -> Tensor:
    """Return a weight of a layer, in the dtype and on the device of its hidden states."""
    norm = layer.sa_layer_norm if _is_distilbert(layer) else layer.output.LayerNorm
    return cast("Tensor", norm.weight)


def describe_encoder_layer(
    layer: Any, dtype: torch.dtype, device: torch.device
) -> EncoderDescription | str:
    """Return a layer's current weights, or why the fused code does not support it.

    Args:
        layer: one of `encoder_layers`.
        dtype: dtype of the hidden states.
        device: device of the hidden states.
    """
    if why := obstacle(device):
        return why
    if torch.is_autocast_enabled(device.type):
        return "autocast is on"
    if dtype not in dtypes(device):
        return f"there are no kernels for {dtype}"
    parts = _distilbert_parts(layer) if _is_distilbert(layer) else _bert_parts(layer)
    if isinstance(parts, str):
        return parts
    if not _is_gelu(parts.activation):
        return f"the activation {type(parts.activation).__name__} is not fused"
    if parts.width % HEAD_MULTIPLE:
        return f"the head width {parts.width} is not a multiple of {HEAD_MULTIPLE}"
    for norm in parts.norms:
        if type(plain(norm)) is not nn.LayerNorm or norm.bias is None:
            return f"a {type(plain(norm)).__name__} is not fused"
        if norm.weight.dtype != dtype:
            return f"norms in {norm.weight.dtype} for hidden states in {dtype} are not fused"
    for module in parts.dropouts:
        if module is not None and type(module) is not nn.Dropout:
            return f"a {type(module).__name__} is not fused"
    around = (*parts.norms, *parts.inner, *(m for m in parts.dropouts if m is not None))
    if any(hooked(module) for module in around):
        return "a hook is registered on one of its modules"
    found: list[tuple[Projection, Factors | None]] = []
    for module in parts.linears:
        projection = projection_of(module, dtype)
        if isinstance(projection, str):
            return projection
        found.append(projection)
    q, k, v, output, up, down = (projection for projection, _ in found)
    if {sizes(one.base)[1] for one in (q, k, v)} != {parts.heads * parts.width}:
        return "the widths of q, k and v differ"
    # Inference mode needs no gradients.
    if not torch.is_inference_mode_enabled() and any(
        parameter.requires_grad
        for module in (*parts.norms, *(projection.base for projection, _ in found))
        for parameter in cast("nn.Module", module).parameters()
    ):
        return "weights of the base are trained"
    first, last = (LayerNorm(norm.weight, norm.bias, norm.eps) for norm in parts.norms)
    described = EncoderLayer(
        qkv=(q, k, v),
        output=output,
        attention_norm=first,
        up=up,
        down=down,
        mlp_norm=last,
        heads=Heads(
            parts.heads,
            parts.heads,
            parts.width,
            parts.attention.scaling,
            causal=bool(parts.attention.is_causal),
        ),
        shares=Shares(*(_share(module) for module in parts.dropouts)),
    )
    return EncoderDescription(described, [factors for _, factors in found])


def _is_layer(module: nn.Module) -> bool:
    family = _BERTS.get(type(module).__module__)
    return type(module).__name__ == f"{family}Layer" or _is_distilbert(module)


def _is_distilbert(module: object) -> bool:
    kind = type(module)
    return kind.__module__ == _DISTILBERT and kind.__name__ == "TransformerBlock"


def _bert_parts(layer: Any) -> _Parts | str:
    """Return the parts of a layer of BERT's kind, or which of them was replaced."""
    outer, inner = layer.attention, layer.attention.self
    family = _BERTS[type(layer).__module__]
    kinds = (
        (outer, "Attention"),
        (inner, "SelfAttention"),
        (outer.output, "SelfOutput"),
        (layer.intermediate, "Intermediate"),
        (layer.output, "Output"),
    )
    for module, kind in kinds:
        own = type(layer).__module__ == type(module).__module__
        if not own or type(module).__name__ != f"{family}{kind}":
            return f"the model's {kind} was replaced by a {type(module).__name__}"
    if layer.is_decoder or layer.add_cross_attention:
        return "the encoder is used as a decoder"
    return _Parts(
        attention=inner,
        linears=(
            *(inner.query, inner.key, inner.value, outer.output.dense),
            *(layer.intermediate.dense, layer.output.dense),
        ),
        norms=(outer.output.LayerNorm, layer.output.LayerNorm),
        activation=layer.intermediate.intermediate_act_fn,
        heads=inner.num_attention_heads,
        width=inner.attention_head_size,
        dropouts=(inner.dropout, outer.output.dropout, layer.output.dropout),
        inner=tuple(module for module, _ in kinds),
    )


def _distilbert_parts(layer: Any) -> _Parts | str:
    """Return the parts of a layer of DistilBERT, or which of them was replaced."""
    attention, mlp = layer.attention, layer.ffn
    for module, kind in ((attention, "DistilBertSelfAttention"), (mlp, "FFN")):
        if type(module).__module__ != _DISTILBERT or type(module).__name__ != kind:
            return f"the model's {kind} was replaced by a {type(module).__name__}"
    return _Parts(
        attention=attention,
        linears=(
            *(attention.q_lin, attention.k_lin, attention.v_lin, attention.out_lin),
            *(mlp.lin1, mlp.lin2),
        ),
        norms=(layer.sa_layer_norm, layer.output_layer_norm),
        activation=mlp.activation,
        heads=attention.n_heads,
        width=attention.attention_head_size,
        dropouts=(attention.dropout, None, mlp.dropout),
        inner=(attention, mlp),
    )


def _is_gelu(module: Any) -> bool:
    """Return whether an activation is GELU by the error function, not by one of its likenesses."""
    if type(module) is GELUActivation:
        return True
    return type(module) is nn.GELU and module.approximate == "none"


def _share(module: nn.Dropout | None) -> float:
    return module.p if module is not None and module.training else 0.0
