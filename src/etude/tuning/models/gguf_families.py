"""Families of models in GGUF files: names of tensors, and what else differs from transformers.

Each family's configuration is read from the file's metadata, under keys that llama.cpp's converter
writes (`convert_hf_to_gguf.py`); constants that it leaves out, as they are the same in all models
of the family, are here. Compared with transformers' own GGUF loader in tests/tuning/models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from etude.core.errors import ModelError

ROPE_FACTORS = "rope_freqs.weight"

TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


class Metadata(Protocol):
    """What a family reads of a file, by keys without the architecture's name."""

    path: Path

    def value(self, key: str, kind: type | tuple[type, ...], default: Any) -> Any:
        """Return a value of the type; refuse another type, or None."""
        ...

    def count(self, key: str, default: int | None = None) -> int:
        """Return a positive integer."""
        ...

    def real(self, key: str, default: float | None = None) -> float:
        """Return a number."""
        ...

    def has(self, name: str) -> bool:
        """Return whether there is a tensor of this name, in GGUF or transformers."""
        ...


def _nothing(metadata: Metadata, fields: dict[str, Any]) -> dict[str, Any]:
    del metadata, fields
    return {}


@dataclass(frozen=True)
class Family:
    """One GGUF architecture."""

    model_type: str
    """transformers' name."""

    model_class: str
    top: Mapping[str, str] = field(default_factory=lambda: TOP)
    block: Mapping[str, str] = field(default_factory=lambda: BLOCK)
    fields: Callable[[Metadata, dict[str, Any]], dict[str, Any]] = _nothing
    """Further fields of the configuration, given those that all families have."""

    offset_norms: bool = False
    """Whether norms hold 1 more than transformers' parameters, which are added to 1."""

    unsqueezed: tuple[str, ...] = ()
    """Modules whose weight (out, k) is (out, 1, k) in transformers."""

    paired_rows: bool = False
    """Whether rows of the query and key projections are in pair order."""

    counted_layers: tuple[str, ...] = ()
    """Metadata that has one value a layer here."""


def _llama(metadata: Metadata, fields: dict[str, Any]) -> dict[str, Any]:
    del fields
    return {
        "attention_bias": metadata.has("model.layers.0.self_attn.q_proj.bias"),
        "mlp_bias": metadata.has("model.layers.0.mlp.up_proj.bias"),
    }


def _gemma3(metadata: Metadata, fields: dict[str, Any]) -> dict[str, Any]:
    """Every sixth layer sees everything; the others a window, with angles of their own."""
    layers: int = fields["num_hidden_layers"]
    kinds = ["full_attention" if i % 6 == 5 else "sliding_attention" for i in range(layers)]
    rope = fields.pop("rope_parameters")
    width, heads = fields["hidden_size"], fields["num_attention_heads"]
    # llama.cpp knows the 27B model by its depth, whose scores alone are scaled by width / heads.
    scale = width // heads if layers == 62 else fields["head_dim"]
    return {
        "rope_parameters": {
            "full_attention": rope,
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        },
        "layer_types": kinds,
        "sliding_window": metadata.count("attention.sliding_window"),
        "query_pre_attn_scalar": scale,
        # Gemma's embedding is its output head, whatever the file says.
        "tie_word_embeddings": not metadata.has("output.weight"),
    }


def _phi3(metadata: Metadata, fields: dict[str, Any]) -> dict[str, Any]:
    if metadata.has("rope_factors_long.weight") or metadata.has("rope_factors_short.weight"):
        raise ModelError(
            f"{metadata.path} has LongRoPE's factors, which are not read from GGUF: load the model "
            "from a folder of safetensors"
        )
    window: int = metadata.value("attention.sliding_window", int, 0)
    rotated = metadata.count("rope.dimension_count", fields["head_dim"])
    rope = fields.pop("rope_parameters")
    return {
        "rope_parameters": {**rope, "partial_rotary_factor": rotated / fields.pop("head_dim")},
        "sliding_window": window or None,
    }


def _lfm2(metadata: Metadata, fields: dict[str, Any]) -> dict[str, Any]:
    """A layer without key heads is a short convolution."""
    groups: list[int] = metadata.value("attention.head_count_kv", list, None)
    fields.pop("head_dim")
    return {
        "num_key_value_heads": max(groups),
        "layer_types": ["full_attention" if count else "conv" for count in groups],
        "conv_L_cache": metadata.count("shortconv.l_cache"),
        "norm_eps": fields.pop("rms_norm_eps"),
        # The file states the width as it is; transformers would shrink a nominal one.
        "block_ff_dim": fields["intermediate_size"],
        "block_auto_adjust_ff_dim": False,
        "conv_bias": False,
    }


FAMILIES: dict[str, Family] = {
    "llama": Family("llama", "LlamaForCausalLM", fields=_llama, paired_rows=True),
    "qwen2": Family("qwen2", "Qwen2ForCausalLM"),
    "qwen3": Family("qwen3", "Qwen3ForCausalLM"),
    "gemma3": Family(
        "gemma3_text",
        "Gemma3ForCausalLM",
        block={
            **BLOCK,
            "post_attention_norm": "post_attention_layernorm",
            "ffn_norm": "pre_feedforward_layernorm",
            "post_ffw_norm": "post_feedforward_layernorm",
        },
        fields=_gemma3,
        offset_norms=True,
    ),
    "phi3": Family(
        "phi3",
        "Phi3ForCausalLM",
        block={
            **{key: BLOCK[key] for key in ("attn_norm", "attn_output", "ffn_norm", "ffn_down")},
            "attn_qkv": "self_attn.qkv_proj",
            "ffn_up": "mlp.gate_up_proj",
        },
        fields=_phi3,
    ),
    "lfm2": Family(
        "lfm2",
        "Lfm2ForCausalLM",
        top={**TOP, "token_embd_norm": "model.embedding_norm"},
        block={
            "attn_norm": "operator_norm",
            "attn_q": "self_attn.q_proj",
            "attn_k": "self_attn.k_proj",
            "attn_v": "self_attn.v_proj",
            "attn_output": "self_attn.out_proj",
            "attn_q_norm": "self_attn.q_layernorm",
            "attn_k_norm": "self_attn.k_layernorm",
            "shortconv.conv": "conv.conv",
            "shortconv.in_proj": "conv.in_proj",
            "shortconv.out_proj": "conv.out_proj",
            "ffn_norm": "ffn_norm",
            "ffn_gate": "feed_forward.w1",
            "ffn_up": "feed_forward.w3",
            "ffn_down": "feed_forward.w2",
        },
        fields=_lfm2,
        unsqueezed=("conv.conv",),
        counted_layers=("attention.head_count_kv",),
    ),
}
"""By GGUF's name. Mistral and SmolLM2 are `llama` in GGUF."""
