"""GGUF checkpoints: conversion of configuration, tensor names and row order to transformers'.

GGUF uses its own names (`blk.3.attn_q.weight`), has metadata instead of a configuration and, for
Llama, stores the rows of the query and key projections in a different order: llama.cpp rotates
neighbouring pairs of dimensions where transformers rotates halves (Su et al. 2021, "RoFormer",
eq. 34, up to a permutation of each head's dimensions).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from etude.core.errors import ModelError, innermost_reason
from etude.tuning.models.checkpoint import TensorInfo
from etude.tuning.models.gguf_families import FAMILIES, ROPE_FACTORS
from etude.tuning.models.gguf_file import GGUFFile, GGUFTensor
from etude.tuning.models.gguf_tokenizer import build_tokenizer

GGUF_ARCHITECTURE = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "mistral": "llama"}
"""transformers' model type -> GGUF architecture, of the models whose adapters can be exported."""

# Metadata unrelated to the weights: two files of the same model may differ in it.
_NOT_IDENTITY = ("general.", "tokenizer.", "quantize.")


def gguf_name(name: str, architecture: str = "llama") -> str | None:
    """Return GGUF's name for transformers' `model.layers.3.mlp.up_proj.weight`, or None."""
    family = FAMILIES[architecture]
    module, _, leaf = name.rpartition(".")
    block = re.fullmatch(r"model\.layers\.(\d+)\.(.+)", module)
    names = family.block if block else family.top
    inner = block[2] if block else module
    for stored, known in names.items():
        if known == inner and leaf in ("weight", "bias"):
            return f"blk.{block[1]}.{stored}.{leaf}" if block else f"{stored}.{leaf}"
    return None


def rows_are_paired(architecture: str, name: str) -> bool:
    """Return whether a GGUF file stores the rows of transformers' tensor `name` in pair order.

    Args:
        architecture: GGUF's name of it.
        name: transformers' name, of a weight or bias.
    """
    return architecture == "llama" and name.split(".")[-3:-1] in (
        ["self_attn", "q_proj"],
        ["self_attn", "k_proj"],
    )


def halves_from_pairs(rows: torch.Tensor, head: int) -> torch.Tensor:
    """Reorder rows from llama.cpp's pair order to transformers' half order.

    Args:
        rows: (heads * head, ...), of any dtype: numbers, or the bytes of blocks.
        head: dimensions of a head.
    """
    paired = rows.reshape(-1, head // 2, 2, *rows.shape[1:])
    return paired.transpose(1, 2).reshape(rows.shape)


def pairs_from_halves(rows: torch.Tensor, head: int) -> torch.Tensor:
    """Invert `halves_from_pairs`."""
    halves = rows.reshape(-1, 2, head // 2, *rows.shape[1:])
    return halves.transpose(1, 2).reshape(rows.shape)


class GGUFCheckpoint:
    """A `Checkpoint` in one GGUF file.

    Raises:
        ModelError: the file is damaged, or its architecture is not supported.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = GGUFFile(path)
        try:
            self._architecture = self._supported_architecture()
            self._stored = self._by_transformers_name()
            self.tensors: Mapping[str, TensorInfo] = {
                name: TensorInfo(
                    self._shape_of(name),
                    tensor.type.name,
                    tensor.bytes,
                    self._interleaved_rows(name),
                )
                for name, tensor in self._stored.items()
            }
        except BaseException:
            self._file.close()
            raise

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The file's key-value metadata."""
        return self._file.metadata

    @property
    def architecture(self) -> str:
        """GGUF's architecture name, a key of `FAMILIES`."""
        return self._architecture

    @property
    def identity(self) -> Mapping[str, Any]:
        """The metadata that describes the architecture."""
        return {
            "architecture": self._architecture,
            **{
                key: value
                for key, value in self.metadata.items()
                if not key.startswith(_NOT_IDENTITY)
            },
        }

    @property
    def license(self) -> str | None:
        """The licence in the metadata."""
        return self.metadata.get("general.license")

    @property
    def chat_template(self) -> str | None:
        """The chat template in the metadata."""
        return self.metadata.get("tokenizer.chat_template")

    @cached_property
    def config(self) -> Any:
        """The transformers configuration, from the metadata and the tensors' shapes."""
        family = FAMILIES[self._architecture]
        heads = self.count("attention.head_count")
        hidden = self.count("embedding_length")
        groups = None
        if "attention.head_count_kv" not in family.counted_layers:
            groups = self.count("attention.head_count_kv", heads)
        fields: dict[str, Any] = {
            "architectures": [family.model_class],
            "vocab_size": self._shape("model.embed_tokens.weight")[0],
            "hidden_size": hidden,
            "intermediate_size": self.count("feed_forward_length"),
            "num_hidden_layers": self.count("block_count"),
            "num_attention_heads": heads,
            "num_key_value_heads": groups,
            "head_dim": self._head_dim,
            "max_position_embeddings": self.count("context_length"),
            "rms_norm_eps": self.real("attention.layer_norm_rms_epsilon"),
            "tie_word_embeddings": "lm_head.weight" not in self._stored,
            "bos_token_id": self._token("bos"),
            "eos_token_id": self._token("eos"),
            "pad_token_id": self._token("padding"),
        }
        if self._architecture == "qwen2" and self._head_dim * heads != hidden:
            raise ModelError(
                f"{self.path}: qwen2 heads of {self._head_dim} dimensions do not add up to "
                f"its hidden size {hidden}"
            )
        try:
            fields["rope_parameters"] = self._rope_parameters(fields)
            fields |= family.fields(self, fields)
            return _configuration(family.model_type, fields)
        except ModelError:
            raise
        except Exception as error:
            # Configuration classes validate themselves, with errors of any type.
            raise ModelError(
                f"{self.path} has invalid metadata: {innermost_reason(error)}"
            ) from error

    def generation_config(self) -> Any:
        """End generation at the end-of-sequence and, if there is one, the end-of-turn token."""
        from transformers import GenerationConfig

        ends = [self._token("eos"), self._token("eot")]
        known = list(dict.fromkeys(token for token in ends if token is not None))
        return GenerationConfig(
            bos_token_id=self._token("bos"),
            eos_token_id=known[0] if len(known) == 1 else known or None,
            pad_token_id=self._token("padding"),
        )

    def tokenizer(self) -> Any:
        """Build the tokenizer from the file's vocabulary, merges and chat template."""
        return build_tokenizer(self.metadata, self.count("context_length"), str(self.path))

    def read_rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Return rows of a tensor, float32, in transformers' order."""
        rows = self._file.read_rows(self._stored[name], start, stop)
        family = FAMILIES[self._architecture]
        if family.offset_norms and name.endswith("norm.weight"):
            rows = rows - 1
        rows = rows.view(len(rows), *self.tensors[name].shape[1:])
        head = self.tensors[name].row_multiple
        return rows if head == 1 else halves_from_pairs(rows, head)

    def read_blocks(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Return stored rows of a tensor in transformers' order.

        Returns:
            uint8 (stop - start, bytes of a row).
        """
        tensor = self._stored[name]
        size = tensor.row_bytes
        raw = self._file.read_bytes(tensor, start * size, (stop - start) * size)
        rows = raw.view(stop - start, size)
        head = self.tensors[name].row_multiple
        return rows if head == 1 else halves_from_pairs(rows, head)

    def read_bytes(self, name: str, start: int, count: int) -> bytes:
        """Return bytes of a tensor as stored."""
        return self._file.read_bytes(self._stored[name], start, count).numpy().tobytes()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _supported_architecture(self) -> str:
        found = self.metadata.get("general.architecture")
        if found not in FAMILIES:
            raise ModelError(
                f"{self.path} is a {found!r} model; GGUF files of {', '.join(FAMILIES)} "
                "can be loaded, other models from a folder of safetensors"
            )
        if self.metadata.get("split.count", 1) > 1:
            raise ModelError(
                f"{self.path} is one of {self.metadata['split.count']} parts; join them first "
                "with `llama-gguf-split --merge`"
            )
        if self.metadata.get(f"{found}.expert_count", 0):
            raise ModelError(f"{self.path} is a mixture of experts, which cannot be loaded yet")
        return found

    def _by_transformers_name(self) -> dict[str, GGUFTensor]:
        family = FAMILIES[self._architecture]
        stored: dict[str, GGUFTensor] = {}
        for name, tensor in self._file.tensors.items():
            if name.startswith("rope_f"):
                continue  # `rope_freqs`, `rope_factors_long`: read with the configuration
            block = re.fullmatch(r"blk\.(\d+)\.([\w.]+)\.(weight|bias)", name)
            top = re.fullmatch(r"(\w+)\.(weight|bias)", name)
            if block and block[2] in family.block:
                stored[f"model.layers.{block[1]}.{family.block[block[2]]}.{block[3]}"] = tensor
            elif top and top[1] in family.top:
                stored[f"{family.top[top[1]]}.{top[2]}"] = tensor
            else:
                raise ModelError(
                    f"{self.path} has a tensor {name!r}, unknown for {self._architecture} models"
                )
        return stored

    def _shape_of(self, name: str) -> tuple[int, ...]:
        shape = self._stored[name].shape
        unsqueezed = FAMILIES[self._architecture].unsqueezed
        if name.removesuffix(".weight").endswith(unsqueezed):
            return shape[0], 1, *shape[1:]
        return shape

    def _interleaved_rows(self, name: str) -> int:
        return self._head_dim if rows_are_paired(self._architecture, name) else 1

    @cached_property
    def _head_dim(self) -> int:
        heads = self.count("attention.head_count")
        size = self.count("attention.key_length", self.count("embedding_length") // heads)
        # Phi-3 may rotate a part of each head.
        part = () if self._architecture == "phi3" else ("rope.dimension_count",)
        for key in ("attention.value_length", *part):
            if self.count(key, size) != size:
                raise ModelError(
                    f"{self.path} has {self._architecture}.{key} {self.count(key)} where its "
                    f"heads have {size} dimensions, which {self._architecture} in transformers "
                    "cannot have"
                )
        return size

    def _rope_parameters(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Return the RoPE parameters; refuse unknown variants."""
        theta = self.real("rope.freq_base", 10000.0)
        kind: str = self.value("rope.scaling.type", str, "none")
        if kind not in ("none", "linear") or self.real("rope.scale_linear", 1.0) != 1.0:
            raise ModelError(f"{self.path} scales RoPE by {kind!r}; none and linear are supported")
        if kind == "linear":
            factor = self.real("rope.scaling.factor")
            return {"rope_type": "linear", "rope_theta": theta, "factor": factor}
        if ROPE_FACTORS not in self._file.tensors:
            return {"rope_type": "default", "rope_theta": theta}
        tensor = self._file.tensors[ROPE_FACTORS]
        factors = self._file.read_rows(tensor, 0, tensor.shape[0]).double()
        return _llama3_rope(theta, factors, fields, str(self.path))

    def value(self, key: str, kind: type | tuple[type, ...], default: Any) -> Any:
        """Return the metadata `<architecture>.<key>`, the same for all layers."""
        value = self.metadata.get(f"{self._architecture}.{key}", default)
        if value is None:
            raise ModelError(f"{self.path} has no {self._architecture}.{key} in its metadata")
        if not isinstance(value, kind):
            raise ModelError(
                f"{self.path} has an unsupported {type(value).__name__} in "
                f"{self._architecture}.{key}"
            )
        return value

    def has(self, name: str) -> bool:
        """Return whether there is a tensor of this name, in GGUF or transformers."""
        return name in self._stored or name in self._file.tensors

    def count(self, key: str, default: int | None = None) -> int:
        """Return the metadata `<architecture>.<key>`, a positive integer."""
        count: int = self.value(key, int, default)
        if count < 1:
            raise ModelError(f"{self.path} is damaged: {self._architecture}.{key} is {count}")
        return count

    def real(self, key: str, default: float | None = None) -> float:
        """Return the metadata `<architecture>.<key>`, a number."""
        return _decimal(self.value(key, (int, float), default))

    def _token(self, role: str) -> int | None:
        return self.metadata.get(f"tokenizer.ggml.{role}_token_id")

    def _shape(self, name: str) -> tuple[int, ...]:
        if name not in self._stored:
            raise ModelError(f"{self.path} has no tensor for {name}")
        return self._stored[name].shape


def _configuration(model_type: str, fields: Mapping[str, Any]) -> Any:
    """Return the transformers configuration of a model type."""
    import transformers

    auto: Any = transformers.AutoConfig
    return auto.for_model(model_type, **fields)


def _decimal(number: float) -> float:
    """Return the shortest decimal for this float32: 1e-05, not 9.999999747378752e-06."""
    return float(str(np.float32(number)))


def _llama3_rope(
    theta: float, factors: torch.Tensor, fields: Mapping[str, Any], origin: str
) -> dict[str, Any]:
    """Recover Llama 3's RoPE scaling from GGUF's factors of each frequency.

    The rule leaves short wavelengths unchanged, divides long ones by `factor`, and interpolates
    between. All published models share the three other parameters, which is verified.
    """
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    scaling: dict[str, Any] = {
        "rope_type": "llama3",
        "rope_theta": theta,
        "factor": _decimal(float(factors.max())),
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    scale: Any = ROPE_INIT_FUNCTIONS["llama3"]
    scaled, _ = scale(_configuration("llama", {**fields, "rope_parameters": scaling}))
    exponents = torch.arange(len(factors), dtype=torch.float64) / len(factors)
    if len(scaled) != len(factors) or not torch.allclose(
        theta**-exponents / scaled.double(), factors, rtol=1e-4
    ):
        raise ModelError(f"{origin} has RoPE frequency factors other than Llama 3's")
    return scaling
