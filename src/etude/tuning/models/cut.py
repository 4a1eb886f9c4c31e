"""A model of fewer layers: some of a checkpoint's, renumbered, as a student of the whole one.

    layers on disk    0  1  2  3  4  5
    kept              0     2     4
    in the model      0     1     2

Embeddings, norms and head stay. What is left out is never read, and the fingerprint covers what is
kept only, so that an adapter of the cut model fits no other (Sanh et al. 2019, "DistilBERT",
section 3, begins a student with one layer of two).
"""

from __future__ import annotations

import copy
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, cast

import torch
from torch import nn

from etude.core.errors import ModelError
from etude.tuning.models.bitsandbytes import BitsAndBytesCheckpoint
from etude.tuning.models.checkpoint import Checkpoint, TensorInfo
from etude.tuning.models.gguf_model import GGUFCheckpoint

_NUMBER = re.compile(r"^(?P<list>.*?)\.(?P<number>\d+)\.(?P<rest>.*)$")


def kept_layers(wanted: int | list[int], config: Any, origin: str) -> tuple[int, ...]:
    """Return the numbers of the layers that stay, from 0.

    Args:
        wanted: the first so many, or those with these numbers.
        config: the transformers configuration of the whole model.
        origin: what to call the model in messages.

    Raises:
        ModelError: the model has no such layers, or is made of several stacks of layers.
    """
    count = getattr(config, "num_hidden_layers", None)
    if config.get_text_config() is not config or not isinstance(count, int):
        raise ModelError(
            f"model.keep_layers: {origin} ({config.model_type}) has more than one stack of layers; "
            "omit it"
        )
    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(f"model.keep_layers: {origin} has an encoder and a decoder; omit it")
    kept = tuple(range(wanted) if isinstance(wanted, int) else wanted)
    if kept[-1] >= count:
        raise ModelError(
            f"model.keep_layers: {origin} has {count} layers, numbered 0 to {count - 1}; "
            f"{f'{wanted} of them' if isinstance(wanted, int) else f'number {kept[-1]}'} cannot "
            "be kept"
        )
    return kept


def cut_config(config: Any, kept: tuple[int, ...]) -> Any:
    """Return the configuration of the model that has these layers of `config`'s only."""
    cut = copy.deepcopy(config)
    count = config.num_hidden_layers
    fields = cast("dict[str, Any]", config.__dict__)
    for name, value in fields.items():
        # Kinds of attention, dense or sparse: one entry a layer.
        if isinstance(value, list) and "layer" in name and len(value) == count:  # pyright: ignore[reportUnknownArgumentType]
            setattr(cut, name, [value[number] for number in kept])
    cut.num_hidden_layers = len(kept)
    return cut


class CutCheckpoint:
    """A `Checkpoint` with some of the layers of another, renumbered.

    Args:
        inner: the files.
        kept: numbers of the layers that stay.

    Raises:
        ModelError: the files are quantised, or which tensors are of a layer cannot be told.
    """

    def __init__(self, inner: Checkpoint, kept: tuple[int, ...]) -> None:
        if isinstance(inner, GGUFCheckpoint | BitsAndBytesCheckpoint):
            raise ModelError(
                f"model.keep_layers: {inner.path} holds quantised weights; use the unquantised "
                "model, in safetensors"
            )
        self.inner = inner
        self.path = inner.path
        self.kept = kept
        self.config = cut_config(inner.config, kept)
        stack = _stack(inner.tensors, inner.config.num_hidden_layers, str(inner.path))
        place = {number: index for index, number in enumerate(kept)}
        self._source: dict[str, str] = {}
        for name in inner.tensors:
            found = _NUMBER.match(name)
            if found is None or found["list"] != stack:
                self._source[name] = name
            elif (number := int(found["number"])) in place:
                self._source[f"{stack}.{place[number]}.{found['rest']}"] = name
        self.tensors: Mapping[str, TensorInfo] = {
            name: inner.tensors[source] for name, source in self._source.items()
        }

    @property
    def identity(self) -> Mapping[str, Any]:
        """The files' own, and which layers are kept."""
        return {**self.inner.identity, "kept_layers": list(self.kept)}

    @property
    def license(self) -> str | None:
        """The files' own."""
        return self.inner.license

    @property
    def chat_template(self) -> str | None:
        """The files' own."""
        return self.inner.chat_template

    def generation_config(self) -> Any | None:
        """Return the files' own."""
        return self.inner.generation_config()

    def tokenizer(self) -> Any:
        """Build the files' own."""
        return self.inner.tokenizer()

    def read_rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Return rows of a tensor along its first dimension, float32."""
        return self.inner.read_rows(self._source[name], start, stop)

    def read_bytes(self, name: str, start: int, count: int) -> bytes:
        """Return bytes of a tensor as stored."""
        return self.inner.read_bytes(self._source[name], start, count)

    def close(self) -> None:
        """Close the files."""
        self.inner.close()


def layer_stack(model: Any) -> nn.ModuleList:
    """Return the layers of a transformers model."""
    return model.get_submodule(_stack_path(model))


def cut_module(model: Any, kept: Iterable[int]) -> None:
    """Leave only these layers in a transformers model that has all of them, in place."""
    kept = tuple(kept)
    path = _stack_path(model)
    whole = model.get_submodule(path)
    layers = nn.ModuleList([whole[number] for number in kept])
    for index, layer in enumerate(layers):
        for module in layer.modules():
            if hasattr(module, "layer_idx"):
                cast("Any", module).layer_idx = index
    model.set_submodule(path, layers)
    fields = cast("dict[str, Any]", cut_config(model.config, kept).__dict__)
    for field, value in fields.items():
        setattr(model.config, field, value)


def _stack_path(model: Any) -> str:
    count = model.config.num_hidden_layers
    modules = cast("Iterable[tuple[str, nn.Module]]", model.named_modules())
    stacks = [
        name
        for name, module in modules
        if isinstance(module, nn.ModuleList) and len(module) == count
    ]
    # Experts of a layer may be as many as there are layers.
    return min(stacks, key=lambda path: path.count("."))


def _stack(names: Iterable[str], count: int, origin: str) -> str:
    """Return what comes before a layer's number in the names of its tensors."""
    numbers: dict[str, set[int]] = defaultdict(set)
    for name in names:
        if found := _NUMBER.match(name):
            numbers[found["list"]].add(int(found["number"]))
    stacks = [name for name, found in numbers.items() if found == set(range(count))]
    if len(stacks) != 1:
        raise ModelError(
            f"model.keep_layers: which tensors of {origin} are of one of its {count} layers cannot "
            "be told from their names; omit it"
        )
    return stacks[0]
