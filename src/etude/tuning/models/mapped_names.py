"""Names on disk that are not names in memory: transformers' own renaming and merging, applied.

transformers writes some models as their first authors did: the output head of GPT-NeoX is
`embed_out`, and the experts of Mixtral are files' worth of single matrices, which in memory are
stacked in one tensor a layer. Its table of these changes (`transformers.conversion_mapping`) is
used as it is; here the changed tensors become readable slice by slice, as all others are.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Any

import torch

from etude.core.errors import ModelError, innermost_reason
from etude.tuning.models.checkpoint import Checkpoint, TensorInfo


@dataclass(frozen=True)
class _Conversion:
    """Tensors of a checkpoint that become one or more tensors of the model."""

    converter: Any
    """transformers' `WeightConverter`."""

    target: str
    """The name that transformers gives the first of the results."""

    sources: Mapping[str, list[str]]
    """Names on disk by the pattern that they match, in the order of their numbers."""

    def run(self, tensors: Mapping[str, list[torch.Tensor]], model: Any) -> dict[str, torch.Tensor]:
        """Return the results by their names in the model."""
        converter = copy.deepcopy(self.converter)
        for pattern, values in tensors.items():
            converter.collected_tensors[pattern] = list(values)
        found = converter.convert(self.target, model=model, config=model.config)
        return {
            name: value[0] if isinstance(value, list) else value for name, value in found.items()
        }

    @property
    def stacks(self) -> bool:
        """Whether row i of the result is made of the i-th sources only: experts, one by one."""
        first, *others = self.converter.operations
        counts = {len(names) for names in self.sources.values()}
        return (
            type(first).__name__ == "MergeModulelist"
            and first.dim == 0
            and len(counts) == 1
            and all(type(op).__name__ in ("Concatenate", "Transpose") for op in others)
            and all(0 not in (getattr(op, d, 1) for d in ("dim", "dim0", "dim1")) for op in others)
        )


class MappedCheckpoint:
    """A `Checkpoint` with the names that a model has in memory.

    Args:
        inner: the files.
        renamed: name in the model -> name on disk.
        converted: name in the model -> the conversion that it is a result of.
        model: a model of the checkpoint's configuration, on the meta device.
    """

    def __init__(
        self,
        inner: Checkpoint,
        renamed: Mapping[str, str],
        converted: Mapping[str, tuple[_Conversion, tuple[int, ...]]],
        model: Any,
    ) -> None:
        self.inner = inner
        self.path = inner.path
        self._renamed, self._converted, self._model = renamed, converted, model
        self._lock = Lock()
        self._kept: dict[str, torch.Tensor] = {}
        self.tensors: Mapping[str, TensorInfo] = {
            **{name: inner.tensors[source] for name, source in renamed.items()},
            **{
                name: TensorInfo(shape, _formats(inner, conversion), math.prod(shape) * 4)
                for name, (conversion, shape) in converted.items()
            },
        }

    @property
    def config(self) -> Any:
        """The files' configuration."""
        return self.inner.config

    @property
    def identity(self) -> Mapping[str, Any]:
        """The files' own."""
        return self.inner.identity

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

    def read_bytes(self, name: str, start: int, count: int) -> bytes:
        """Return bytes of a tensor on disk, which one that is converted is not."""
        return self.inner.read_bytes(self._renamed[name], start, count)

    def close(self) -> None:
        """Close the files."""
        self.inner.close()

    def reopened(self, inner: Checkpoint) -> MappedCheckpoint:
        """Return the same names for the same files, opened again."""
        shapes = self._converted
        return MappedCheckpoint(inner, self._renamed, shapes, self._model)

    def read_rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Return rows of a tensor along its first dimension, float32."""
        if name not in self._converted:
            return self.inner.read_rows(self._renamed[name], start, stop)
        conversion, shape = self._converted[name]
        if conversion.stacks:
            parts = {p: self._read(names[start:stop]) for p, names in conversion.sources.items()}
            return conversion.run(parts, self._model)[name]
        with self._lock:
            if name not in self._kept:
                parts = {p: self._read(names) for p, names in conversion.sources.items()}
                self._kept[name] = conversion.run(parts, self._model)[name]
            whole = self._kept[name]
            if stop == shape[0]:
                del self._kept[name]
        return whole[start:stop]

    def _read(self, names: list[str]) -> list[torch.Tensor]:
        infos = [self.inner.tensors[name] for name in names]
        return [
            self.inner.read_rows(name, 0, info.shape[0] if info.shape else 1)
            for name, info in zip(names, infos, strict=True)
        ]


def with_model_names(checkpoint: Checkpoint, model: Any) -> Checkpoint:
    """Return the checkpoint with the names of `model`, by transformers' table for its class.

    Args:
        checkpoint: the files; names that the model has already stay.
        model: what `build_meta_model` returned.

    Raises:
        ModelError: tensors that are merged do not fit together.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import (
        WeightConverter,
        WeightRenaming,
        dot_natural_key,
        rename_source_key,  # pyright: ignore[reportUnknownVariableType] - partly typed
    )

    state: dict[str, Any] = model.state_dict()
    trunk: str = model.base_model_prefix
    known = {*state, *(name.removeprefix(f"{trunk}.") for name in state)}
    if checkpoint.tensors.keys() <= known:
        return checkpoint
    table: list[Any] = get_model_conversion_mapping(model)
    renamings: Any = [one for one in table if isinstance(one, WeightRenaming)]
    converters: Any = [one for one in table if isinstance(one, WeightConverter)]
    by_pattern = {pattern: one for one in converters for pattern in one.source_patterns}
    renamed: dict[str, str] = {}
    merged: dict[str, tuple[Any, dict[str, list[str]]]] = {}
    for name in sorted(checkpoint.tensors, key=dot_natural_key):
        target, pattern = name, None
        if name not in known:
            target, pattern = rename_source_key(name, renamings, converters, trunk, state)
        if pattern is None or target not in state:
            # What matches nothing keeps its name, so that it is reported as it is on disk.
            renamed[target if target in state else name] = name
            continue
        _, sources = merged.setdefault(target, (by_pattern[pattern], {}))
        sources.setdefault(pattern, []).append(name)
    if not merged and all(name == source for name, source in renamed.items()):
        return checkpoint
    converted: dict[str, tuple[_Conversion, tuple[int, ...]]] = {}
    for target, (converter, sources) in merged.items():
        conversion = _Conversion(converter, target, sources)
        shapes = {
            pattern: [torch.empty(checkpoint.tensors[name].shape, device="meta") for name in names]
            for pattern, names in sources.items()
        }
        try:
            results = conversion.run(shapes, model)
        except Exception as error:
            # transformers' operations check nothing; what does not fit fails in its own way.
            raise ModelError(
                f"{checkpoint.path}: the tensors of {target} do not fit together "
                f"({innermost_reason(error)})"
            ) from error
        for name, value in results.items():
            converted[name] = conversion, tuple(value.shape)
    return MappedCheckpoint(checkpoint, renamed, converted, model)


def _formats(checkpoint: Checkpoint, conversion: _Conversion) -> str:
    (first, *_), *_ = conversion.sources.values()
    return checkpoint.tensors[first].format
