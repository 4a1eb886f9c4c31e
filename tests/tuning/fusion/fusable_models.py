"""Small random models with decoder layers that can be fused, with an adapter that is not zero."""

from __future__ import annotations

import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from etude.tuning.adapters.inject import add_adapter
from etude.tuning.adapters.multi_adapter import adapter_parameters
from etude.tuning.config.sections.adapter import AdapterSpec
from etude.tuning.config.sections.quant import QuantSpec
from etude.tuning.models.meta_model import quantizable_linears
from etude.tuning.quant.build import quantized

SIZES = {
    "vocab_size": 97,
    "hidden_size": 80,
    "intermediate_size": 100,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "initializer_range": 0.08,
}
MODELS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES)),
    "llama with biases": lambda: LlamaForCausalLM(
        LlamaConfig(**SIZES, attention_bias=True, mlp_bias=True)
    ),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**SIZES, sliding_window=20)),
    "qwen2 with windows above": lambda: Qwen2ForCausalLM(
        Qwen2Config(
            **{k: v for k, v in SIZES.items() if k not in ("head_dim", "hidden_size")},
            hidden_size=64,
            use_sliding_window=True,
            sliding_window=9,
            max_window_layers=1,
        )
    ),
    "qwen2": lambda: Qwen2ForCausalLM(
        Qwen2Config(
            **{k: v for k, v in SIZES.items() if k not in ("head_dim", "hidden_size")},
            hidden_size=64,
            use_sliding_window=False,
        )
    ),
}


def adapted(make, spec: AdapterSpec | None = None, quant: QuantSpec | None = None, seed: int = 0):
    """Return a model with an adapter that is not zero."""
    torch.manual_seed(seed)
    model = make().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or name.endswith("bias"):
                parameter.add_(0.3 * torch.randn_like(parameter))
    if quant is not None:
        for name, linear in quantizable_linears(model).items():
            parent, _, last = name.rpartition(".")
            bias = linear.bias
            held = quantized(linear.weight.detach(), quant, linear.weight.dtype, bias)
            setattr(model.get_submodule(parent), last, held)
    add_adapter(model, spec or AdapterSpec(rank=4, alpha=8), seed=0)
    with torch.no_grad():
        for parameter in adapter_parameters(model).values():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model
