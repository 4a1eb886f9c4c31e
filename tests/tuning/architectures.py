"""Tiny random causal language models of many architectures, for what is probed and not assumed."""

from __future__ import annotations

from typing import Any

import torch

_COMMON: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
}
_GROUPED = {"num_key_value_heads": 2, "head_dim": 16}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
_DELTA = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
}
_MAMBA2 = {"mamba_n_heads": 8, "mamba_d_state": 8, "mamba_d_head": 16, "mamba_n_groups": 1}
_JAMBA = {
    "attn_layer_period": 2,
    "attn_layer_offset": 1,
    "expert_layer_period": 2,
    "num_experts": 4,
    "mamba_d_state": 8,
    "use_mamba_kernels": False,
}
_LLAMA4 = {
    "num_local_experts": 4,
    "intermediate_size_mlp": 96,
    "attention_chunk_size": 256,
    "interleave_moe_layer_step": 2,
    "no_rope_layers": [1, 0],
}
_LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0] * 8,
    "long_factor": [4.0] * 8,
    "original_max_position_embeddings": 64,
}

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": _GROUPED,
    "mistral": {**_GROUPED, "sliding_window": 8},
    "qwen3": _GROUPED,
    "gpt2": {},
    "gpt_neox": {},
    "gptj": {"n_embd": 64, "n_layer": 2, "n_head": 4, "rotary_dim": 8},
    "falcon": {},
    "bloom": {"n_layer": 2, "n_head": 4},
    "stablelm": _GROUPED,
    "nemotron": _GROUPED,
    "phi3": _GROUPED,
    "gemma2": {**_GROUPED, "sliding_window": 8},
    "gemma3_text": {**_GROUPED, "sliding_window": 8},
    "mixtral": {**_GROUPED, "num_local_experts": 4},
    "qwen2_moe": {**_GROUPED, **_EXPERTS, "shared_expert_intermediate_size": 32},
    "qwen3_moe": {**_GROUPED, **_EXPERTS},
    "gpt_oss": {
        **_GROUPED,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "sliding_window": 8,
    },
    "llama4_text": {**_GROUPED, **_LLAMA4},
    "mamba": {"state_size": 8},
    "mamba2": {"state_size": 8, "num_heads": 8, "head_dim": 16, "n_groups": 1, "chunk_size": 16},
    "falcon_mamba": {"state_size": 8},
    "bamba": {**_GROUPED, **_MAMBA2, "attn_layer_indices": [1]},
    "zamba2": {
        "layers_block_type": ["linear_attention", "hybrid"],
        "mamba_d_state": 8,
        "n_mamba_heads": 8,
        "use_mamba_kernels": False,
    },
    "jamba": {**_GROUPED, **_JAMBA},
    "olmo_hybrid": {**_GROUPED, **_DELTA},
    "recurrent_gemma": {"block_types": ["recurrent", "attention"], "attention_window_size": 8},
    "lfm2": {**_GROUPED, "layer_types": ["conv", "full_attention"], "block_ff_dim": 96},
    "lfm2_moe": {
        **_EXPERTS,
        "num_key_value_heads": 2,
        "layer_types": ["conv", "full_attention"],
        "num_dense_layers": 1,
    },
    "qwen3_next": {**_GROUPED, **_EXPERTS, **_DELTA, "shared_expert_intermediate_size": 32},
    "qwen3_5_text": {**_GROUPED, **_DELTA},
    "qwen3_5_moe_text": {
        **_GROUPED,
        **_EXPERTS,
        **_DELTA,
        "shared_expert_intermediate_size": 32,
    },
    "granite": {**_GROUPED, "logits_scaling": 2.0},
    "granitemoe": {**_GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2},
    "granitemoehybrid": {
        **_MAMBA2,
        "layer_types": ["mamba", "attention"],
        "num_local_experts": 4,
        "shared_intermediate_size": 64,
        "num_experts_per_tok": 2,
    },
    "falcon_h1": {**_GROUPED, **_MAMBA2, "mamba_d_ssm": 128, "lm_head_multiplier": 0.5},
    "cohere": {**_GROUPED, "logit_scale": 0.25},
    "doge": _GROUPED,
    "phi3 longrope": {
        **_GROUPED,
        "original_max_position_embeddings": 64,
        "rope_parameters": _LONGROPE,
    },
    "llama ntk": {
        **_GROUPED,
        "max_position_embeddings": 64,
        "rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0},
    },
}
"""By model type, with a note behind a space: what differs from `_COMMON`."""


def tiny(name: str, dtype: torch.dtype = torch.float32, **more: Any) -> Any:
    """Return a random model whose norms, biases and matrices all matter, in evaluation mode."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    fields = {**_COMMON, **ARCHITECTURES[name], **more}
    if name == "bloom":
        fields.pop("num_hidden_layers"), fields.pop("num_attention_heads")
    config = AutoConfig.for_model(name.partition(" ")[0], **fields)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for path, parameter in model.named_parameters():
            if parameter.dim() >= 2 and parameter.std() < 0.05:
                parameter.mul_(4)
            elif parameter.dim() == 1 and not path.endswith("A_log"):
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model.to(dtype)
