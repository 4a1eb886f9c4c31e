"""Modules trained in full beside the adapters and saved with them (`modules_to_save`).

A low-rank change does not suit a new head or an embedding with new tokens. Such a module keeps its
frozen original; a float32 copy is trained, computes in the original's dtype, and is disabled with
the adapter.

Where the module's weight is tied to another's (an output head to the embedding), both get the same
copy: the weights stay tied, with one copy in memory, in the optimiser and on disk. PEFT gives each
a copy of its own; an adapter that was trained so is read so, and what computes with it is no longer
tied.

A copy may also be of a part: of the bias alone, or of some rows of the weight (`trained_rows`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import nn

from etude.core.errors import AdapterError, NoTargetMatchedError, did_you_mean
from etude.tuning.adapters.layer import AdaptedLayer
from etude.tuning.adapters.targets import name_matches, named_modules, replace_module
from etude.tuning.adapters.trained_rows import TrainedRows

Ties = Callable[[str, str], bool]
"""Whether the copies of two modules whose originals share a weight are one."""


class ModuleToSave(nn.Module):
    """A frozen module with its trained copies, by adapter name.

    Attributes:
        base: the original.
        copies: float32, by adapter name; shared with tied modules.
        active: names of the active adapters; the last one with a copy applies.
        enabled: False uses the original.
    """

    def __init__(self, base: nn.Module, copies: nn.ModuleDict | None = None) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.copies = nn.ModuleDict() if copies is None else copies
        self.active: tuple[str, ...] = ()
        self.enabled = True

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the original, or the active copy's for weights.

        Code that reads `weight` instead of calling the module - a fused layer, a loss that
        multiplies by the output matrix itself - gets what `forward` would have used.
        """
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "base":
                raise
            found = getattr(self.base, name)
            return (
                self.computing_parameters().get(name, found)
                if isinstance(found, nn.Parameter)
                else found
            )

    def add(self, name: str, only: str | None = None) -> nn.Module:
        """Make a trainable float32 copy for the adapter `name` and return it.

        Args:
            name: the adapter.
            only: the parameter to copy, `bias`; None: all.
        """
        if name not in self.copies:
            twin: nn.Module
            if only is None:
                twin = copy.deepcopy(self.base).float().requires_grad_(True)
            else:
                twin = nn.Module()
                value = self.base.get_parameter(only).detach().float().clone()
                twin.register_parameter(only, nn.Parameter(value))
            self.copies[name] = twin
        return self.copies[name]

    def add_rows(self, name: str, ids: Sequence[int], values: torch.Tensor) -> None:
        """Make some rows of the weight trainable for the adapter `name`.

        Args:
            name: the adapter.
            ids: numbers of the rows.
            values: their first values, (rows, width).
        """
        if name not in self.copies:
            self.copies[name] = TrainedRows(ids, values)

    def is_whole(self, name: str) -> bool:
        """Return whether the adapter `name` has a copy of every parameter."""
        own = dict(self.base.named_parameters())
        return own.keys() <= dict(self.copies[name].named_parameters()).keys()

    def copy_of(self, name: str) -> nn.Module | None:
        """Return the copy of the adapter `name`, or None."""
        return self.copies[name] if name in self.copies else None  # noqa: SIM401 - no such method

    def computing_copy(self) -> nn.Module | None:
        """Return the active copy, or None."""
        chosen = [name for name in self.active if name in self.copies]
        return self.copies[chosen[-1]] if self.enabled and chosen else None

    def computing_parameters(self) -> dict[str, torch.Tensor]:
        """Return the active copy's parameters by name, in the original's dtype; {} if inactive."""
        chosen = self.computing_copy()
        if chosen is None:
            return {}
        if isinstance(chosen, TrainedRows):
            return {"weight": chosen.into(cast("torch.Tensor", self.base.weight))}
        # By name: a tied module shares only the weight with the copy.
        twin = dict(chosen.named_parameters())
        return {n: twin[n].to(p.dtype) for n, p in self.base.named_parameters() if n in twin}

    def forward(self, *arguments: Any, **options: Any) -> Any:
        """Return the active copy's output, in the dtype of the original."""
        chosen = self.computing_copy()
        if isinstance(chosen, TrainedRows):
            return chosen(self.base, *arguments, **options)
        weights = self.computing_parameters()
        if not weights:
            return self.base(*arguments, **options)
        call = cast("Any", torch.func.functional_call)
        return call(self.base, weights, arguments, options)


def saved_modules(model: nn.Module) -> dict[str, ModuleToSave]:
    """Return the wrapped modules by their dotted paths, including all tied ones."""
    return {
        name: module
        for name, module in cast("Any", model).named_modules(remove_duplicate=False)
        if isinstance(module, ModuleToSave)
    }


def find_saved(model: nn.Module, names: list[str]) -> list[str]:
    """Return the paths of the modules named by `names`: full paths or their endings.

    Raises:
        NoTargetMatchedError: a name matches no module.
        AdapterError: a match has no weights, or lies inside another match.
    """
    found: list[str] = []
    modules = {path: module for path, module in named_modules(model) if path}
    for name in names:
        paths = [path for path in modules if name_matches(path, name)]
        if not paths:
            hint = did_you_mean(name, {path.rpartition(".")[2] for path in modules})
            raise NoTargetMatchedError(f"adapter.modules_to_save: no module {name!r}{hint}")
        for path in paths:
            if not list(modules[path].parameters()):
                raise AdapterError(f"adapter.modules_to_save: {path} has no weights to train")
        found += paths
    inner = [path for path in found if any(path.startswith(f"{outer}.") for outer in found)]
    if inner:
        raise AdapterError(f"adapter.modules_to_save: {inner[0]} lies inside another listed module")
    return list(dict.fromkeys(found))


def tied_to(model: nn.Module, path: str) -> list[str]:
    """Return the paths of modules that share the weight of the module at `path`."""
    own = {id(p) for p in _original(model.get_submodule(path)).parameters()}
    return [
        name
        for name, module in cast("Any", model).named_modules(remove_duplicate=False)
        if name
        and name != path
        and not name.endswith(".base")
        and ".copies." not in name
        and any(id(p) in own for p in _original(module).parameters(recurse=False))
    ]


def _original(module: nn.Module) -> nn.Module:
    return module.base if isinstance(module, ModuleToSave | AdaptedLayer) else module


def attach_saved(
    model: nn.Module,
    paths: list[str],
    name: str,
    *,
    ties: Ties | None = None,
    only: str | None = None,
    rows: tuple[Sequence[int], torch.Tensor] | None = None,
) -> None:
    """Give the modules at `paths` trainable copies for the adapter `name`.

    Args:
        model: the base, with or without adapters.
        paths: the modules.
        name: the adapter.
        ties: whether tied modules share a copy; None: they do.
        only: the parameter to copy; None: all of the module.
        rows: the rows of the weight to train, and their first values; None: all.

    Raises:
        AdapterError: a module is adapted as well, or another adapter ties what this one does not.
    """
    for path in paths:
        module = model.get_submodule(path)
        others = [] if only else tied_to(model, path)
        group = {path, *(other for other in others if ties is None or ties(path, other))}
        if not isinstance(module, ModuleToSave):
            if isinstance(module, AdaptedLayer):
                what = "some rows of it cannot also be" if rows else "it cannot also be"
                raise AdapterError(
                    f"{path} has an adapter; {what} trained in full: leave it out of "
                    "adapter.target_modules"
                )
            module = ModuleToSave(module).train(module.training)
            replace_module(model, path, module)
            for other in group - {path}:
                # Tied modules share one copy, so they stay tied.
                twin = ModuleToSave(_original(model.get_submodule(other)), module.copies)
                replace_module(model, other, twin)
        elif name not in module.copies:
            sharing = {p for p, m in saved_modules(model).items() if m.copies is module.copies}
            if not only and sharing != group:
                raise AdapterError(
                    f"{path} shares its weight with another module for one adapter and not for "
                    f"{name!r}; load them on bases of their own"
                )
        if rows is None:
            module.add(name, only)
        else:
            module.add_rows(name, *rows)


def untie(model: nn.Module, path: str) -> None:
    """Give the module at `path` a weight of its own, if it shares it with another module."""
    if tied_to(model, path):
        layer = model.get_submodule(path)
        base: Any = layer.base if isinstance(layer, AdaptedLayer) else layer
        base.weight = nn.Parameter(base.weight.detach().clone(), requires_grad=False)
