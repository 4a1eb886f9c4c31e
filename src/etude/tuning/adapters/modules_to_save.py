"""Modules trained in full beside the adapters and saved with them (`modules_to_save`).

A low-rank change does not suit a new head or an embedding with new tokens. Such a module keeps its
frozen original; a float32 copy is trained, computes in the original's dtype, and is disabled with
the adapter.

Where the module's weight is tied to another's (an output head to the embedding), both get the same
copy: the weights stay tied, with one copy in memory, in the optimiser and on disk.
"""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from torch import nn

from etude.core.errors import AdapterError, NoTargetMatchedError, did_you_mean
from etude.tuning.adapters.targets import name_matches, named_modules


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

    def add(self, name: str) -> nn.Module:
        """Make a trainable float32 copy for the adapter `name` and return it."""
        if name not in self.copies:
            twin = copy.deepcopy(self.base).float().requires_grad_(True)
            self.copies[name] = twin
        return self.copies[name]

    def computing_parameters(self) -> dict[str, torch.Tensor]:
        """Return the active copy's parameters by name, in the original's dtype; {} if inactive."""
        chosen = [name for name in self.active if name in self.copies]
        if not self.enabled or not chosen:
            return {}
        # By name: a tied module shares only the weight with the copy.
        twin = dict(self.copies[chosen[-1]].named_parameters())
        return {n: twin[n].to(p.dtype) for n, p in self.base.named_parameters() if n in twin}

    def forward(self, *arguments: Any, **options: Any) -> Any:
        """Return the active copy's output, in the dtype of the original."""
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
    return module.base if isinstance(module, ModuleToSave) else module
