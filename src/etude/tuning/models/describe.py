"""Model description from metadata alone; no weights are read."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import torch

from etude.core.errors import ModelError
from etude.tuning.config.sections.quant import QuantSpec
from etude.tuning.models.catalog import CATALOG
from etude.tuning.models.checkpoint import Checkpoint
from etude.tuning.models.load import open_checkpoint
from etude.tuning.models.meta_model import build_meta_model, quantizable_linears
from etude.tuning.models.sources import ModelSource
from etude.tuning.models.stored_formats import stored_formats
from etude.tuning.quant.build import quantized_bytes

_NOT_WEIGHTS = ("I64", "I32", "U8", "BOOL")


@dataclass(frozen=True)
class LoadedSize:
    """Memory of a loaded model that computes in bfloat16, in bytes."""

    dense: int
    nf4: int
    """Every Linear but the output head quantised."""

    nf4_peak: int
    """Peak memory added by loading in NF4; see benchmarks/load_memory.py."""

    native: int | None
    """With `quant.kind: native`. None: nothing is quantised on disk."""


@dataclass(frozen=True)
class ModelFacts:
    """Facts about a local model. None: unknown."""

    name: str
    format: str
    path: str
    bytes: int
    """On disk, all files."""

    license: str | None
    summary: str | None = None
    """Description, if it has an alias."""

    architecture: str | None = None
    parameters: int | None = None
    layers: int | None = None
    hidden: int | None = None
    heads: int | None = None
    key_value_heads: int | None = None
    context: int | None = None
    """Longest sequence, tokens."""

    vocabulary: int | None = None
    tensor_types: Mapping[str, int] = field(default_factory=dict[str, int])
    """Storage format -> number of weights."""

    chat_template: str | None = None
    memory: LoadedSize | None = None
    """None: the model cannot be loaded."""


def describe(source: ModelSource, quant: QuantSpec) -> ModelFacts:
    """Return the facts in the files of a local model.

    Args:
        source: the model, resolved.
        quant: options of the NF4 load.

    Raises:
        ModelError: the files are damaged.
    """
    assert source.path is not None, "pull first"
    assert source.format is not None
    known = CATALOG.get(source.name)
    stated, summary = (known.license, known.summary) if known else (None, None)
    size = _disk_bytes(source.path)
    if source.format == "ctranslate2":
        return ModelFacts(source.name, source.format, str(source.path), size, stated, summary)
    with closing(open_checkpoint(source)) as checkpoint:
        config = checkpoint.config
        types: Counter[str] = Counter()
        for info in checkpoint.tensors.values():
            if info.format not in _NOT_WEIGHTS:
                types[info.format] += math.prod(info.shape)
        return ModelFacts(
            name=source.name,
            format=source.format,
            path=str(source.path),
            bytes=size,
            license=stated or checkpoint.license,
            summary=summary,
            architecture=(config.architectures or [config.model_type])[0],
            parameters=types.total(),
            layers=getattr(config, "num_hidden_layers", None),
            hidden=getattr(config, "hidden_size", None),
            heads=getattr(config, "num_attention_heads", None),
            key_value_heads=getattr(config, "num_key_value_heads", None),
            context=getattr(config, "max_position_embeddings", None),
            vocabulary=getattr(config, "vocab_size", None),
            tensor_types=dict(types.most_common()),
            chat_template=checkpoint.chat_template,
            memory=_loaded_size(checkpoint, source.name, quant),
        )


def _loaded_size(checkpoint: Checkpoint, name: str, quant: QuantSpec) -> LoadedSize | None:
    """Compute the size of the loaded model on the meta device."""
    dtype = torch.bfloat16
    try:
        model = build_meta_model(checkpoint.config, dtype, name)
    except ModelError:
        return None
    numbers = [parameter.numel() for parameter in model.parameters()]
    dense = sum(numbers) * dtype.itemsize
    dense += sum(buffer.numel() * buffer.element_size() for buffer in model.buffers())
    linears = quantizable_linears(model)
    saved = 0
    for linear in linears.values():
        held = quantized_bytes(linear.in_features, linear.out_features, quant)
        saved += linear.weight.numel() * dtype.itemsize - held
    try:
        kept = stored_formats(checkpoint, linears, QuantSpec(kind="native"), name)
    except ModelError:
        kept = {}
    fewer = 0
    for path, form in kept.items():
        linear = linears[path]
        if isinstance(form, str):  # a block's bytes in memory are its bytes in the file
            held = checkpoint.tensors[f"{path}.weight"].bytes
        else:
            held = quantized_bytes(linear.in_features, linear.out_features, form)
        fewer += linear.weight.numel() * dtype.itemsize - held
    slack = max(numbers) * torch.float32.itemsize * 3 // 2
    native = dense - fewer if kept else None
    return LoadedSize(dense, dense - saved, dense - saved + slack, native)


def _disk_bytes(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
