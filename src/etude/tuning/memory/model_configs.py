"""From a model's name to its configuration; no weight is read, and none need be here.

Well-known models are known by their shapes, so that a plan can be made before anything is fetched.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from etude.core.errors import ModelError
from etude.tuning.config.recipe import Recipe
from etude.tuning.config.sections.model import ModelSpec
from etude.tuning.memory.estimate import held_as
from etude.tuning.memory.trace import Held
from etude.tuning.models.catalog import known_models, unknown_model
from etude.tuning.models.cut import cut_config, kept_layers
from etude.tuning.models.folder import read_json
from etude.tuning.models.heads import CAUSAL_LM, Head
from etude.tuning.models.load import ModelFiles
from etude.tuning.models.meta_model import build_meta_model, quantizable_linears
from etude.tuning.models.stored_formats import stored_formats
from etude.tuning.quant.build import layer_class
from etude.tuning.quant.gguf import GGUFLinear


def _llama(
    hidden: int, inner: int, layers: int, heads: int, groups: int, words: int, tied: bool = False
) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "vocab_size": words,
        "tie_word_embeddings": tied,
        "max_position_embeddings": 8192,
    }


def _of(kind: str, fields: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {**fields, "model_type": kind, **more}


KNOWN: Mapping[str, dict[str, Any]] = {
    "smollm2-135m": _llama(576, 1536, 30, 9, 3, 49152, True),
    "smollm2-360m": _llama(960, 2560, 32, 15, 5, 49152, True),
    "smollm2-1.7b": _llama(2048, 8192, 24, 32, 32, 49152, True),
    "llama-2-7b": _llama(4096, 11008, 32, 32, 32, 32000),
    "llama-3.2-1b": _llama(2048, 8192, 16, 32, 8, 128256, True),
    "llama-3.2-3b": _llama(3072, 8192, 28, 24, 8, 128256, True),
    "llama-3.1-8b": _llama(4096, 14336, 32, 32, 8, 128256),
    "llama-3.1-70b": _llama(8192, 28672, 80, 64, 8, 128256),
    "mistral-7b": _of("mistral", _llama(4096, 14336, 32, 32, 8, 32000), sliding_window=None),
    "qwen2.5-0.5b": _of("qwen2", _llama(896, 4864, 24, 14, 2, 151936, True)),
    "qwen2.5-7b": _of("qwen2", _llama(3584, 18944, 28, 28, 4, 152064)),
    "qwen2.5-14b": _of("qwen2", _llama(5120, 13824, 48, 40, 8, 152064)),
    "qwen2.5-32b": _of("qwen2", _llama(5120, 27648, 64, 40, 8, 152064)),
    "mixtral-8x7b": _of(
        "mixtral",
        _llama(4096, 14336, 32, 32, 8, 32000),
        num_local_experts=8,
        num_experts_per_tok=2,
        sliding_window=None,
    ),
    "efficientnet-lite0": {"model_type": "efficientnet-lite"},
}
"""Shapes of published models, as their config.json has them."""


@dataclass(frozen=True)
class ModelOutline:
    """What an estimate needs to know of a model; no weight is read for it."""

    config: Any
    """The transformers configuration."""

    head: Head = CAUSAL_LM

    files: ModelFiles | None = None
    """Its files, open, for what they keep quantised (`quant.kind: native`). None: not here."""


@contextmanager
def open_outline(spec: ModelSpec, head: Head = CAUSAL_LM) -> Generator[ModelOutline]:
    """Yield what is known of a model, its files open until the end, if it has any here.

    Args:
        spec: the recipe's model; its name as for `config_of`.
        head: what it is to have on top.

    Raises:
        ModelError: nothing of that name is known or here.
    """
    try:
        files = ModelFiles(spec.id, spec.keep_layers)
    except ModelError:
        files = None
    if files is None or not files.are_here:
        yield ModelOutline(config_of(spec), head)
        return
    with files:
        yield ModelOutline(config_of(spec, files), head, files)


def config_of(spec: ModelSpec, files: ModelFiles | None = None) -> Any:
    """Return the transformers configuration of a model, cut to the layers that it keeps.

    Args:
        spec: names a model on this machine (alias, hub id, folder, `.gguf`), a `config.json`, or
            one of `KNOWN`.
        files: the model's, where they are open already.

    Raises:
        ModelError: nothing of that name is known or here.
    """
    if files is not None and files.are_here:
        return files.config
    config = _whole_config(spec.id)
    if spec.keep_layers is None:
        return config
    return cut_config(config, kept_layers(spec.keep_layers, config, spec.id))


def _whole_config(name: str) -> Any:
    path = Path(name).expanduser()
    if path.suffix == ".json" or (path / "config.json").is_file():
        file = path if path.suffix == ".json" else path / "config.json"
        fields = read_json(file)
        fields.pop("quantization_config", None)
        return _from_fields(fields, str(file))
    try:
        files = ModelFiles(name)
    except ModelError:
        if name.lower() in KNOWN:
            return known_config(name)
        raise ModelError(
            f"{unknown_model(name, [*known_models(), *KNOWN])}; or give a folder, a .gguf file, "
            "a hub id or a config.json"
        ) from None
    if not files.are_here:
        if name.lower() in KNOWN:
            return known_config(name)
        raise ModelError(
            f"{name} is not on this machine: give its config.json, or etude models pull {name}"
        )
    with files:
        return files.config


def known_config(name: str) -> Any:
    """Return the transformers configuration of one of `KNOWN`, whatever is on this machine."""
    from transformers import AutoConfig

    auto: Any = AutoConfig
    return auto.for_model(**KNOWN[name.lower()])


def _from_fields(fields: dict[str, Any], origin: str) -> Any:
    from transformers import AutoConfig

    auto: Any = AutoConfig
    kind = fields.pop("model_type", None)
    if not isinstance(kind, str):
        raise ModelError(f"{origin} names no model_type, so nobody can tell what it is")
    try:
        return auto.for_model(kind, **fields)
    except Exception as error:
        # Each model's configuration checks its fields in its own way.
        raise ModelError(f"{origin} is not understood: {error}".splitlines()[0]) from error


def held_on_disk(recipe: Recipe, outline: ModelOutline) -> Held:
    """Return how Linears are held, with what the model's own files keep (`quant.kind: native`).

    Raises:
        ModelError: its files are wanted and not here, or cannot be held as they are.
    """
    if recipe.quant.kind != "native":
        return held_as(recipe)
    files, name = outline.files, recipe.model.id
    if files is None or not files.are_here:
        raise ModelError(
            f"quant.kind: native needs the files of {name}, which are not here; estimate with "
            "quant.kind: nf4"
        )
    model = build_meta_model(outline.config, torch.bfloat16, name, outline.head)
    kept = stored_formats(files.checkpoint, quantizable_linears(model), recipe.quant, name)

    def held(path: str, linear: nn.Linear, dtype: torch.dtype) -> Any:
        form = kept.get(path)
        sizes = linear.in_features, linear.out_features
        if form is None:
            return None
        if isinstance(form, str):
            return GGUFLinear(*sizes, form, dtype, linear.bias)
        return layer_class(form)(*sizes, form, dtype, linear.bias)

    return held
