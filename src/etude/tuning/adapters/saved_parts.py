"""Data classes of a saved adapter: its configuration and the tensors of each module."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."
"""PEFT's prefix of module paths."""
BASE_LAYER = ".base_layer"
"""PEFT's name of what it wraps."""


@dataclass(frozen=True)
class PeftOptions:
    """Validated PEFT configuration."""

    folder: Path
    kind: str
    """Name of the kind, as in the recipe's `adapter.kind`."""
    rank: int
    """0 if the kind has none."""
    alpha: float
    dropout: float
    targets: str | list[str]
    """PEFT's `target_modules`: names, or a regular expression."""
    excluded: str | list[str]
    ranks: dict[str, int]
    """PEFT's `rank_pattern`: regular expression to rank."""
    alphas: dict[str, float]
    saved: list[str]
    """PEFT's `modules_to_save`."""
    base: str | None
    transposed: bool
    """PEFT's `fan_in_fan_out`: the adapted layers store their weights as (in, out)."""
    bias: str
    """PEFT's `bias`: `none`, `all` or `lora_only`."""
    layers: list[int] | None
    """PEFT's `layers_to_transform`; None: all."""
    layer_lists: list[str]
    """PEFT's `layers_pattern`: names of the lists that layers are counted in."""
    tokens: dict[str, list[int]]
    """PEFT's `trainable_token_indices` by the name of the module; `""`: the input embedding."""
    parameters: list[str]
    """PEFT's `target_parameters`, by their endings: weights of Linears and of stacked experts."""
    config: Mapping[str, Any]
    """The whole configuration, for keys of one kind only."""

    def rank_of(self, path: str) -> int:
        """Return the configured rank of the module at `path`."""
        return _by_pattern(self.ranks, self.name_of(path), self.rank)

    def alpha_of(self, path: str) -> float:
        """Return the configured alpha of the module at `path`."""
        return float(_by_pattern(self.alphas, self.name_of(path), self.alpha))

    def name_of(self, path: str) -> str:
        """Return what patterns are matched with: the module's path, or that of its weight."""
        return weight_of(path) if self.is_parameter(path) else path

    def is_stacked(self, wrapper: str) -> bool:
        """Return whether tensors at `wrapper`, a name in the file, are of experts' weights.

        PEFT wraps the module that has the weight, once more for each further weight.
        """
        path = wrapper
        while path.endswith(BASE_LAYER):
            path = path.removesuffix(BASE_LAYER)
        for name in self.parameters:
            owner, _, leaf = name.rpartition(".")
            if leaf == "weight":
                continue
            if path == owner or path.endswith(f".{owner}" if owner else ".experts"):
                return True
        return False

    def is_parameter(self, path: str) -> bool:
        """Return whether the weight of the module at `path` is among `target_parameters`."""
        weight = weight_of(path)
        return any(weight == name or weight.endswith(f".{name}") for name in self.parameters)


@dataclass(frozen=True)
class SavedPart:
    """The adapter of one module."""

    tensors: dict[str, Tensor]
    """Tensors by their names in `Adapter.trained`, float32: `lora_A` (r, in) and `lora_B`
    (out, r), DoRA's `lora_magnitude_vector` (out,), and so on."""
    rank: int
    alpha: float
    scaling: float
    """s in ΔW = s·B A."""


@dataclass(frozen=True)
class WrittenPart:
    """Tensors to write for one module."""

    tensors: dict[str, Tensor]
    """Tensors by the endings of their names in the file: `lora_A.weight`."""
    rank: int
    alpha: float


def weight_of(path: str) -> str:
    """Return the path of a module's weight."""
    return f"{path}.weight"


def listed(names: list[str], count: int = 4) -> str:
    """Join the first names and count the others."""
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more


def _by_pattern(patterns: dict[str, Any], path: str, default: Any) -> Any:
    """Return the value of the first pattern that matches the end of `path`, as in PEFT."""
    for pattern, value in patterns.items():
        if re.match(rf"(.*\.)?({pattern})$", path):
            return value
    return default
