"""Export of quantised models for transformers and bitsandbytes.

    model ──read and quantised slice by slice──▶ codes, scales ──▶ safetensors, config.json

The layout is that of `models/bitsandbytes.py`; the bytes are those that bitsandbytes makes of the
same weights. The folder is read back before it gets its name: a model whose logits differ by a bit
is not kept.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from etude.core.errors import ModelError
from etude.core.progress import Progress, SilentProgress
from etude.tuning.config.sections.model import ModelSpec
from etude.tuning.config.sections.quant import QuantSpec
from etude.tuning.kernels.codebooks import CODEBOOKS, DYNAMIC_BLOCK, DYNAMIC_LEVELS
from etude.tuning.models.bitsandbytes import METHOD, STATE
from etude.tuning.models.load import LoadedModel, load_model
from etude.tuning.models.output import (
    move,
    no_bars,
    refuse_base_folder,
    refuse_existing,
    write_aside,
)
from etude.tuning.quant.block import BlockLinear
from etude.tuning.quant.int8 import Int8Linear
from etude.tuning.quant.linear import QuantLinear

SHARD = "4GB"
"""Largest file of weights; more of them are written where a model is larger."""

_SAMPLE_TOKENS = 24


@dataclass(frozen=True)
class QuantizeReport:
    """What was written."""

    folder: Path
    layers: int
    """Linears that were quantised."""
    bytes: int
    """Of all files."""
    dense_bytes: int
    """Of the same model unquantised, in the dtype of the weights that were left."""


def quantize_model(
    spec: ModelSpec,
    quant: QuantSpec,
    output: str | Path,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> QuantizeReport:
    """Quantize every Linear but the output head, and write the model.

    Args:
        spec: the model; its dtype is that of the weights that stay as they are.
        quant: `nf4` or `fp4` with block and double quantisation, or `int8`.
        output: folder to write; it appears whole or not at all.
        overwrite: replace a model folder that is there.
        progress: reports every stage.

    Raises:
        ModelError: the format is none of bitsandbytes, or the model cannot be read or quantised.
        RunError: the output already exists, or cannot be written.
    """
    output = Path(output)
    if quant.kind not in ("nf4", "fp4", "int8"):
        raise ModelError(f"bitsandbytes has no {quant.kind}: choose nf4, fp4 or int8")
    refuse_existing(output, overwrite)
    progress = progress or SilentProgress()
    # A file is what comes of it, and a GPU would only pass the weights through.
    spec = spec.model_copy(update={"device": "cpu"})
    loaded = load_model(spec, quant, progress)
    refuse_base_folder(output, loaded.origin)
    layers = {n: m for n, m in loaded.model.named_modules() if isinstance(m, QuantLinear)}
    if any(layer.from_conv1d for layer in layers.values()):
        raise ModelError(
            f"{spec.id} has Conv1D layers, which transformers does not read back from codes; its "
            "4 bits are for training here (quant.kind)"
        )
    logits = _logits(loaded)
    aside = write_aside(output, lambda folder: _save(loaded, layers, quant, folder))
    try:
        _check(aside, spec, quant, logits)
        written = sum(file.stat().st_size for file in aside.iterdir())
        saved = sum(
            layer.in_features * layer.out_features * loaded.dtype.itemsize - layer.quantized_bytes
            for layer in layers.values()
        )
        move(aside, output)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return QuantizeReport(output, len(layers), written, written + saved)


def _save(
    loaded: LoadedModel, layers: dict[str, QuantLinear], quant: QuantSpec, folder: Path
) -> None:
    from huggingface_hub import save_torch_state_dict

    inside = tuple(f"{name}." for name in layers)
    state: dict[str, Tensor] = loaded.model.state_dict()
    tensors = {name: value for name, value in state.items() if not name.startswith(inside)}
    for name, layer in layers.items():
        tensors.update({f"{name}.{leaf}": v for leaf, v in _companions(layer, loaded).items()})
    save: Any = save_torch_state_dict
    save(tensors, folder, max_shard_size=SHARD, metadata={"format": "pt"})
    with no_bars():
        loaded.model.config.save_pretrained(folder)
        if loaded.model.can_generate():
            loaded.model.generation_config.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    file = folder / "config.json"
    fields = json.loads(file.read_text("utf-8"))
    fields["dtype"] = _name(loaded.dtype)
    fields["quantization_config"] = _stated(quant, loaded)
    file.write_text(json.dumps(fields, indent=2) + "\n", "utf-8")


def _companions(layer: QuantLinear, loaded: LoadedModel) -> dict[str, Tensor]:
    """Return the tensors of one layer by bitsandbytes' names."""
    tensors: dict[str, Tensor] = {}
    if layer.bias is not None:
        tensors["bias"] = layer.bias
    if isinstance(layer, Int8Linear):
        tensors |= {"weight": layer.codes, "SCB": layer.absmax}
        return tensors | {"weight_format": torch.tensor(0, dtype=torch.uint8)}
    if not isinstance(layer, BlockLinear):
        raise ModelError(f"bitsandbytes has no {layer.storage()}")
    kind = layer.spec.kind
    stated: dict[str, Any] = {
        "quant_type": kind,
        "blocksize": layer.block,
        "dtype": _name(loaded.dtype),
        "shape": [layer.out_features, layer.in_features],
    }
    tensors["weight"] = layer.codes[:, None]
    tensors["weight.absmax"] = layer.absmax
    tensors["weight.quant_map"] = CODEBOOKS[kind].levels
    if layer.double_quantized:
        stated |= {
            "nested_blocksize": DYNAMIC_BLOCK,
            "nested_dtype": "float32",
            "nested_offset": float(layer.absmax_offset),
        }
        tensors["weight.nested_absmax"] = layer.absmax_scales
        tensors["weight.nested_quant_map"] = DYNAMIC_LEVELS
    packed = json.dumps(stated).encode()
    tensors[f"weight.{STATE}{kind}"] = torch.tensor(list(packed), dtype=torch.uint8)
    # Tables are shared by all layers here; a file holds each on its own.
    return {name: value.clone() if "map" in name else value for name, value in tensors.items()}


def _stated(quant: QuantSpec, loaded: LoadedModel) -> dict[str, Any]:
    """Return the `quantization_config` that transformers reads."""
    head = loaded.model.get_output_embeddings()
    skipped = [name for name, module in loaded.model.named_modules() if module is head]
    stated: dict[str, Any] = {"quant_method": METHOD, "llm_int8_skip_modules": skipped}
    if quant.kind == "int8":
        return stated | {"load_in_8bit": True, "load_in_4bit": False}
    return stated | {
        "load_in_8bit": False,
        "load_in_4bit": True,
        "bnb_4bit_quant_type": quant.kind,
        "bnb_4bit_use_double_quant": quant.double,
        "bnb_4bit_compute_dtype": _name(loaded.dtype),
        "bnb_4bit_quant_storage": "uint8",
    }


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


@torch.no_grad()
def _logits(loaded: LoadedModel) -> Tensor:
    """Return logits of a few tokens, spread over the vocabulary."""
    vocabulary = loaded.model.get_input_embeddings().weight.shape[0]
    ids = torch.linspace(0, vocabulary - 1, _SAMPLE_TOKENS).long()[None]
    return loaded.model(input_ids=ids, use_cache=False).logits


def _check(folder: Path, spec: ModelSpec, quant: QuantSpec, logits: Tensor) -> None:
    again = load_model(spec.model_copy(update={"id": str(folder)}), quant)
    if not torch.equal(_logits(again), logits):
        raise ModelError(
            "the written model is not equivalent to the quantised one; "
            "it was discarded. Please report this"
        )
