"""Write small GGUF files the way llama.cpp's converter does, to have something to read.

Names come from the `gguf` package's own table, and quantised blocks from its encoders, so that the
reader under test shares no code with what made its input.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType

ARCHITECTURE = {
    "llama": gguf.MODEL_ARCH.LLAMA,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
    "qwen3": gguf.MODEL_ARCH.QWEN3,
    "gemma3": gguf.MODEL_ARCH.GEMMA3,
    "phi3": gguf.MODEL_ARCH.PHI3,
    "lfm2": gguf.MODEL_ARCH.LFM2,
}


@dataclass
class Vocabulary:
    """What a GGUF file says of its tokenizer."""

    kind: str
    tokens: list[str]
    types: list[int]
    pre: str | None = None
    merges: list[str] | None = None
    scores: list[float] | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    """Further `tokenizer.*` entries: ids of special tokens, flags, chat template."""


def write_gguf(
    path: Path,
    model: Any,
    vocabulary: Vocabulary,
    matrices: GGMLQuantizationType | Callable[[str], GGMLQuantizationType] = (
        GGMLQuantizationType.F32
    ),
    rope_factors: np.ndarray | None = None,
) -> Path:
    """Write a transformers model of a supported family and a vocabulary as one file.

    Args:
        path: of the file to write.
        model: the transformers model.
        vocabulary: its tokenizer.
        matrices: format of everything with two dimensions, or what GGUF's name of one makes it;
            the rest is float32. Formats that the gguf package cannot write are filled with random
            blocks of the weights' size, so that the file is a model, but not this one.
        rope_factors: Llama 3's divisors of the rotary frequencies.
    """
    config = model.config
    architecture = config.model_type.removesuffix("_text")
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    kinds = getattr(config, "layer_types", None) or []
    groups = config.num_key_value_heads
    if architecture == "lfm2":
        groups = [groups if kind == "full_attention" else 0 for kind in kinds]
        writer.add_shortconv_l_cache(config.conv_L_cache)
    writer.add_head_count_kv(groups)
    writer.add_layer_norm_rms_eps(getattr(config, "rms_norm_eps", None) or config.norm_eps)
    rope = config.rope_parameters
    writer.add_rope_freq_base(rope.get("full_attention", rope)["rope_theta"])
    if architecture in ("gemma3", "phi3"):
        writer.add_sliding_window(config.sliding_window)
    head_dim = getattr(config, "head_dim", None)
    head_dim = head_dim or config.hidden_size // config.num_attention_heads
    if head_dim * config.num_attention_heads != config.hidden_size:
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    _write_vocabulary(writer, vocabulary)
    names = gguf.get_tensor_name_map(ARCHITECTURE[architecture], config.num_hidden_layers)
    if rope_factors is not None:
        writer.add_tensor("rope_freqs.weight", rope_factors.astype(np.float32))
    tied = config.tie_word_embeddings
    for name, value in model.state_dict().items():
        if tied and name == "lm_head.weight":
            continue
        array = value.float().numpy()
        if architecture == "llama" and name.split(".")[-2] in ("q_proj", "k_proj"):
            heads = len(array) // head_dim
            array = interleave(array, heads)
        if architecture == "gemma3" and name.endswith("norm.weight"):
            array = array + 1
        if name.endswith("conv.conv.weight"):
            array = array[:, 0]
        stored = names.get_name(name, try_suffixes=(".weight", ".bias"))
        wanted = matrices(stored) if callable(matrices) else matrices
        plain = array.ndim != 2 or "conv.conv" in name
        kind = GGMLQuantizationType.F32 if plain else wanted
        blocks = encode(np.ascontiguousarray(array), kind)
        writer.add_tensor(stored, blocks, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def encode(array: np.ndarray, kind: GGMLQuantizationType) -> np.ndarray:
    """Return the blocks of `array`, or random ones; see `write_gguf`."""
    try:
        return gguf.quants.quantize(array, kind)
    except NotImplementedError:
        return random_blocks(array.shape, kind, float(array.std()))


# Where a block of 256 keeps its float16 scales, and what they are if the weights' spread is 1:
# codes and the groups' scales are uniform, and an offset takes off the mean of their product.
_SCALES = {
    "Q2_K": ((80, 1 / 10), (82, 1.5 / 10)),
    "Q4_K": ((0, 1 / 190), (2, 7.5 / 190)),
    "Q5_K": ((0, 1 / 390), (2, 15.5 / 390)),
    "Q6_K": ((208, 1 / 1350),),
}


def random_blocks(
    shape: tuple[int, ...], kind: GGMLQuantizationType, spread: float, seed: int = 0
) -> np.ndarray:
    """Return random blocks for weights of `shape` whose standard deviation is about `spread`."""
    weights, size = gguf.GGML_QUANT_SIZES[kind]
    draw = np.random.default_rng((seed, *shape))
    rows = draw.integers(0, 256, (*shape[:-1], shape[-1] // weights, size), dtype=np.uint8)
    for start, scale in _SCALES[kind.name]:
        rows[..., start : start + 2] = np.array([scale * spread], np.float16).view(np.uint8)
    return rows.reshape(*shape[:-1], -1)


def interleave(rows: np.ndarray, heads: int) -> np.ndarray:
    """Reorder each head's rows from halves (0..d/2, d/2..d) to pairs (0, d/2, 1, d/2 + 1, ...)."""
    halves = rows.reshape(heads, 2, len(rows) // heads // 2, *rows.shape[1:])
    return np.ascontiguousarray(np.moveaxis(halves, 1, 2)).reshape(rows.shape)


def _write_vocabulary(writer: gguf.GGUFWriter, vocabulary: Vocabulary) -> None:
    writer.add_tokenizer_model(vocabulary.kind)
    if vocabulary.pre is not None:
        writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    if vocabulary.merges is not None:
        writer.add_token_merges(vocabulary.merges)
    if vocabulary.scores is not None:
        writer.add_token_scores(vocabulary.scores)
    for key, value in vocabulary.extra.items():
        if isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        else:
            writer.add_string(key, value)


def byte_level_vocabulary(tokenizer: Any, pre: str, **extra: Any) -> Vocabulary:
    """Return the vocabulary of a byte-level BPE tokenizer of transformers."""
    import json

    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    special = set(tokenizer.all_special_tokens)
    roles = {"bos": tokenizer.bos_token_id, "eos": tokenizer.eos_token_id}
    roles["padding"] = tokenizer.pad_token_id
    fields = {f"tokenizer.ggml.{role}_token_id": index for role, index in roles.items()}
    return Vocabulary(
        kind="gpt2",
        tokens=tokens,
        types=[3 if token in special else 1 for token in tokens],
        pre=pre,
        merges=[" ".join(merge) for merge in model["merges"]],
        extra={**fields, "tokenizer.chat_template": tokenizer.chat_template, **extra},
    )
