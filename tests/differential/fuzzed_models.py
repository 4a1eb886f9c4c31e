"""Small random models of many architectures, saved as folders; and text for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as hf
from configurations import Configuration
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from etude.tuning.data.encoded import EncodedSample

WORDS = 260


def tokenizer() -> Any:
    """Return one token a byte, an end and a padding token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = ["<end>", "<pad>", *alphabet]
    made = Tokenizer(models.BPE(vocab={w: i for i, w in enumerate(words)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token="<end>", pad_token="<pad>", model_max_length=256
    )


SIZES: dict[str, Any] = {
    "vocab_size": WORDS,
    "hidden_size": 64,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 1,
    "initializer_range": 0.12,
}


def config_of(configuration: Configuration) -> Any:
    """Return the transformers configuration."""
    sizes = {**SIZES, "tie_word_embeddings": configuration.tied}
    made = {
        "llama": lambda: hf.LlamaConfig(**sizes),
        "llama-biases": lambda: hf.LlamaConfig(**sizes, attention_bias=True, mlp_bias=True),
        "mistral": lambda: hf.MistralConfig(**sizes, sliding_window=9),
        "qwen2": lambda: hf.Qwen2Config(**sizes),
        "qwen3": lambda: hf.Qwen3Config(**sizes, head_dim=16),
        "gemma": lambda: hf.GemmaConfig(**sizes, head_dim=16),
        "phi3": lambda: hf.Phi3Config(**sizes),
        "mixtral": lambda: hf.MixtralConfig(
            **sizes, num_local_experts=4, num_experts_per_tok=2, sliding_window=9
        ),
        "qwen3_moe": lambda: hf.Qwen3MoeConfig(
            **sizes, head_dim=16, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=24
        ),
        "gpt_oss": lambda: hf.GptOssConfig(
            **sizes, head_dim=16, num_local_experts=4, num_experts_per_tok=2, sliding_window=9
        ),
        "gpt2": lambda: hf.GPT2Config(
            vocab_size=WORDS, n_positions=256, n_embd=64, n_layer=2, n_head=4, n_inner=80,
            bos_token_id=0, eos_token_id=0, pad_token_id=1, initializer_range=0.12,
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
            tie_word_embeddings=configuration.tied,
        ),
    }  # fmt: skip
    return made[configuration.architecture]()


def write_base(configuration: Configuration, folder: Path) -> None:
    """Write the model's folder: random weights, none of them zero or one throughout."""
    torch.manual_seed(configuration.seed)
    model = hf.AutoModelForCausalLM.from_config(config_of(configuration))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)


def samples_of(configuration: Configuration) -> list[EncodedSample]:
    """Return a few samples, a part of each of them trained."""
    chance = np.random.default_rng(configuration.seed)
    found: list[EncodedSample] = []
    for number, length in enumerate((13, 5, 22, 2)):
        ids = chance.integers(2, WORDS - 4, length).astype(np.int32)
        if configuration.added:
            new = chance.random(length) < 0.3
            ids[new] = len(tokenizer()) + chance.integers(0, configuration.added, int(new.sum()))
        trained = chance.random(length) < 0.7
        trained[0], trained[-1] = False, True
        found.append(EncodedSample(ids, trained, f"row {number}"))
    return found
