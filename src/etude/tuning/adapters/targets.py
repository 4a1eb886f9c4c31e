"""Selection of target modules: by name, by pattern, or all Linear layers.

A name selects the modules whose dotted path ends in it (`q_proj`, `mlp.gate_proj`, or a full path);
a pattern with `*`, `?` or `[` is matched against the full path; `all-linear` selects every Linear
except the output head, gates of a single output, and what PEFT refuses to adapt. Each entry of a
list must match something: ignoring a misspelt one would train less than requested, and the loss
curve would not show it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any, cast

from torch import nn

from etude.core.errors import NoTargetMatchedError, nearest
from etude.tuning.adapters import bases
from etude.tuning.adapters.bases import CAN_CARRY, Base, LinearLike, bias
from etude.tuning.adapters.layer import AdaptedLayer
from etude.tuning.adapters.stacked import StackedLinear
from etude.tuning.models.heads import head_modules
from etude.tuning.models.linear_layers import is_product

ALL_LINEAR = "all-linear"


def named_modules(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return all modules of `model` with their dotted paths, as torch does, but typed."""
    untyped: Any = model
    return list(untyped.named_modules())


def replace_module(model: nn.Module, name: str, module: nn.Module) -> None:
    """Replace the module at the dotted path `name`."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


def linear_modules(model: nn.Module) -> dict[str, LinearLike]:
    """Return every Linear of `model` (dense, quantised or Conv1D) by its dotted path."""
    return {
        name: module
        for name, module in adaptable_modules(model).items()
        if isinstance(module, LinearLike)
    }


def adaptable_modules(model: nn.Module) -> dict[str, Base]:
    """Return every layer that supports adapters by its dotted path, adapted ones included.

    Fully trained modules and their originals are excluded, and Linears that are no products.
    """
    found: dict[str, Base] = {}
    wrappers: list[str] = []
    for name, module in named_modules(model):
        if any(name.startswith(outer) for outer in wrappers):
            continue
        if isinstance(module, AdaptedLayer):
            wrappers.append(f"{name}.")
            found[name] = module.base
        elif hasattr(module, "copies"):
            wrappers.append(f"{name}.")
        elif isinstance(module, Base) and (not isinstance(module, nn.Linear) or is_product(module)):
            found[name] = module
    return found


def find_targets(model: nn.Module, targets: str | list[str]) -> list[str]:
    """Return the dotted paths of the modules selected by `targets`, in the model's order.

    Args:
        model: a model without adapters.
        targets: `all-linear`, a name, a pattern, or a list of them.

    Raises:
        NoTargetMatchedError: an entry matches no module; the message lists the nearest names
            and all existing ones.
    """
    linear: dict[str, Base] = {
        path: module
        for path, module in adaptable_modules(model).items()
        if not isinstance(module, StackedLinear)  # of `target_parameters`
    }
    entries = [targets] if isinstance(targets, str) else targets
    if not entries:
        raise NoTargetMatchedError(f"adapter.target_modules is empty; {_existing(linear)}")
    chosen: set[str] = set()
    for entry in entries:
        found = _matches(model, linear, entry)
        if not found:
            raise NoTargetMatchedError(_nothing_found(model, linear, entry))
        fused = [path for path in linear if path in found and refused_by_peft(model, path)]
        if fused:
            raise NoTargetMatchedError(
                f"target {entry!r} matches {fused[0]}, whose weight Mamba's kernels read without "
                "calling it: an adapter would train nothing there, and PEFT refuses one; leave it "
                "out of adapter.target_modules"
            )
        chosen |= found
    return [name for name in linear if name in chosen]


def in_layers(model: nn.Module, paths: list[str], layers: list[int]) -> list[str]:
    """Return the `paths` in the decoder layers of these numbers; all of them if none is named.

    A module's layer is the first number in its path, as for PEFT's `layers_to_transform`.

    Raises:
        NoTargetMatchedError: the model has no such layer, or nothing to adapt in it.
    """
    if not layers:
        return paths
    numbers = {path: layer_number(path) for path in paths}
    empty = [number for number in layers if number not in numbers.values()]
    if empty:
        there = {n for name, _ in named_modules(model) if (n := layer_number(name)) is not None}
        known = f"0 to {max(there)}" if there else "none"
        raise NoTargetMatchedError(
            f"adapter.layers: none of the target modules is in layer {empty[0]}; the model's "
            f"layers: {known}"
        )
    return [path for path in paths if numbers[path] in layers]


def layer_number(path: str, patterns: Sequence[str] = ()) -> int | None:
    """Return the number of the layer that the module at `path` is in, or None.

    Args:
        path: of the module.
        patterns: names of the lists that layers are counted in (PEFT's `layers_pattern`); none:
            any name.
    """
    for pattern in patterns or (r"[^.]*",):
        found = re.match(rf"(?:^|.*?\.){pattern}\.(\d+)(?:\.|$)", path)
        if found is not None:
            return int(found[1])
    return None


def with_bias(model: nn.Module, among: list[str] | None = None) -> list[str]:
    """Return the paths of the modules that have a bias, those trained whole excluded.

    Args:
        model: the model, with or without adapters.
        among: the modules to look at; None: all.
    """
    found: list[str] = []
    inside: tuple[str, ...] = ()
    for path, module in named_modules(model):
        if inside and path.startswith(inside):
            continue
        if isinstance(module, AdaptedLayer) or hasattr(module, "copies"):
            inside += (f"{path}.",)
        if hasattr(module, "copies") or (among is not None and path not in among):
            continue
        base = module.base if isinstance(module, AdaptedLayer) else module
        own = dict(base.named_parameters(recurse=False)).get("bias")
        if isinstance(base, Base):
            own = bias(base)  # of a quantised one it is a buffer
        if own is not None:
            found.append(path)
    return found


_FUSED_MODELS = ("falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h")
_FUSED = ("conv1d", "out_proj")
"""Modules whose weight Mamba's kernels read without a call; PEFT refuses adapters on them
(`peft.tuners.tuners_utils`, https://github.com/huggingface/peft/issues/2556)."""


def refused_by_peft(model: Any, path: str) -> bool:
    """Return whether PEFT refuses an adapter on the module at `path`."""
    kind: Any = getattr(getattr(model, "config", None), "model_type", None)
    return kind in _FUSED_MODELS and path.rpartition(".")[2] in _FUSED


_EXPERT_NAMES = {
    "mixtral": ("gate", "w1", "w2", "w3"),
    "qwen2_moe": ("gate", "gate_proj", "up_proj", "down_proj"),
}
"""Names that PEFT takes for the experts' stacked weights, by transformers' family of renamings; as
`target_modules` they cannot mean a Linear there, which `target_parameters` can
(`peft.utils.transformers_weight_conversion`)."""


def means_experts_to_peft(model: Any, path: str) -> bool:
    """Return whether PEFT takes the name of the module at `path` for that of stacked experts.

    Qwen3-Next's shared experts are so called, and DeepSeek's first layers: before transformers
    stacked the others, all of them were Linears of these names.
    """
    from transformers import conversion_mapping

    kind: Any = getattr(getattr(model, "config", None), "model_type", None)
    families: Any = getattr(conversion_mapping, "_MODEL_TO_CONVERSION_PATTERN", {})
    family = kind if kind == "mixtral" else families.get(kind)
    return path.rpartition(".")[2] in _EXPERT_NAMES.get(family, ())


def name_matches(path: str, name: str) -> bool:
    """Return whether the dotted `path` is `name` or ends in it."""
    return path == name or path.endswith(f".{name}")


def _matches(model: nn.Module, linear: dict[str, Base], entry: str) -> set[str]:
    if entry == ALL_LINEAR:
        head, outside = _output_head(model), head_modules(model)
        return {
            name
            for name, module in linear.items()
            if isinstance(module, LinearLike)
            and module is not head
            and name.partition(".")[0] not in outside
            and bases.sizes(module)[1] > 1
            and not refused_by_peft(model, name)
        }
    return {name for name in linear if entry_matches(name, entry)}


def entry_matches(path: str, entry: str) -> bool:
    """Return whether `entry`, a name or a pattern, matches `path`."""
    return fnmatchcase(path, entry) if is_pattern(entry) else name_matches(path, entry)


def is_pattern(entry: str) -> bool:
    """Return whether `entry` is a pattern."""
    return any(character in entry for character in "*?[")


def _output_head(model: Any) -> Any:
    """Return the model's output head, if it declares one."""
    get: Any = getattr(model, "get_output_embeddings", None)
    return get() if get is not None else None


def _nothing_found(model: nn.Module, linear: dict[str, Base], entry: str) -> str:
    for path, module in named_modules(model):
        if path and entry_matches(path, entry):
            kind = cast("type[Any]", type(module)).__name__
            return (
                f"target {entry!r} matches {path!r}, a {kind}, but adapters support {CAN_CARRY} "
                f"layers only; {_existing(linear)}"
            )
    names = {name.rpartition(".")[2] for name in linear}
    close = nearest(entry, [*names, ALL_LINEAR, *(linear if "." in entry else ())])
    near = f" (nearest: {', '.join(close)})" if close else ""
    return f"target {entry!r} matches no module{near}; {_existing(linear)}"


def _existing(linear: dict[str, Base]) -> str:
    if not linear:
        return f"the model has no {CAN_CARRY}"
    counts = Counter(name.rpartition(".")[2] for name in linear)
    listed = ", ".join(f"{name} ({count})" for name, count in counts.items())
    return f"the model has {listed}"
