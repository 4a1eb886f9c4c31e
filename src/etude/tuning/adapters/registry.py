"""The kinds of adapters: what each brings, and where to look one up.

A kind is a module of `kinds/`: the class of its adapters (`adapter.Adapter`), and an `AdapterKind`
that says how one is put on a model, written, read, trained. `register` enters it here, under the
name that recipes give it; whatever depends on the kind of an adapter asks `kind(name)`. The keys
of recipes alone are elsewhere (`config/sections/adapter.py`), for recipes are read without torch.
"""

from __future__ import annotations

import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from etude.core.errors import AdapterError
from etude.tuning.adapters import bases
from etude.tuning.adapters.adapter import Adapter
from etude.tuning.adapters.bases import Base
from etude.tuning.adapters.low_rank import Taken
from etude.tuning.adapters.saved_parts import PeftOptions, SavedPart, WrittenPart
from etude.tuning.callbacks import Callback
from etude.tuning.config.sections.adapter import AdapterSpec


@dataclass(frozen=True)
class AdapterTensor:
    """A trained tensor of a kind of adapter."""

    name: str
    """As `Adapter.trained` and PEFT name it: `lora_A`."""
    ending: str
    """Of its name in a file: `lora_A.weight`."""
    embedding: str | None = None
    """The same where the module is an embedding, if that differs."""
    decays: bool = True
    """Whether weight decay applies: it pulls the tensor to zero, which must mean no change."""
    up: bool = False
    """Whether it is the factor U, whose rate LoRA+ raises (`train.loraplus_lr_ratio`)."""

    @property
    def endings(self) -> tuple[str, ...]:
        """All that a name in a file may end in; PEFT has written them without `.weight`, too."""
        short = self.ending.removesuffix(".weight")
        every = self.ending, short, self.embedding
        return tuple(dict.fromkeys(ending for ending in every if ending is not None))


Settings = tuple[int, float]
"""Rank and alpha of a module."""


class AdapterKind(ABC):
    """One kind of adapter. What most kinds share is given; the rest a kind must say."""

    name: ClassVar[str]
    """In recipes: `adapter.kind`."""

    read_as: ClassVar[str | None] = None
    """Name of the kind that a folder of this one is read as; None: this one."""

    peft_type: ClassVar[str]
    """In PEFT's configuration, of folders that are read."""

    tensors: ClassVar[tuple[AdapterTensor, ...]]
    """What it trains."""

    config_keys: ClassVar[frozenset[str]]
    """Keys of PEFT's configuration, beside those of all kinds, that are read, or that change
    nothing once training is over."""

    shared_keys: ClassVar[frozenset[str]] = frozenset()
    """Names in the file of tensors that belong to no module."""

    beyond_factors: ClassVar[str | None] = None
    """What a saved adapter has beside pairs of factors, for messages; None: nothing, it is a plain
    LoRA."""

    least_rank: ClassVar[int] = 1
    """Of a configuration; 0 where the kind has no rank."""

    may_leave_out: ClassVar[bool] = False
    """Whether a module that the configuration targets may be missing from the file."""

    # Putting one on a model.

    @abstractmethod
    def refuse_misfit(self, path: str, base: Base, rank: int) -> None:
        """Refuse a module that cannot carry such an adapter.

        Raises:
            AdapterError: it cannot.
        """

    @abstractmethod
    def build(
        self, found: dict[str, Base], settings: dict[str, Settings], spec: AdapterSpec, seed: int
    ) -> dict[str, Adapter]:
        """Make the adapters of all modules, their values still to come (`Adapter.reset`).

        Args:
            found: base layers by path.
            settings: rank and alpha by path.
            spec: the recipe's.
            seed: of what the modules share.

        Raises:
            NoTargetMatchedError: a key of the kind's own names no module.
        """

    # Training.

    def callbacks(self, adapters: Mapping[str, Adapter], spec: AdapterSpec) -> list[Callback]:
        """Return what acts on the adapters in the course of training."""
        del adapters, spec
        return []

    # Writing.

    @abstractmethod
    def written(self, adapter: Adapter, base: Base, taken: Taken | None) -> WrittenPart | None:
        """Return what is written of one module; None where nothing of it is left.

        Args:
            adapter: of the module.
            base: its layer.
            taken: what the initialisation took off the base, or None.
        """

    def shared(self, adapters: Sequence[Adapter]) -> dict[str, Tensor]:
        """Return what is written once for all modules, by name in the file."""
        del adapters
        return {}

    @abstractmethod
    def peft_config(
        self,
        common: dict[str, Any],
        spec: AdapterSpec,
        parts: Mapping[str, WrittenPart],
        adapters: Mapping[str, Adapter],
    ) -> dict[str, Any]:
        """Return PEFT's configuration.

        Args:
            common: the keys that all kinds have.
            spec: the recipe's.
            parts: what is written, by module.
            adapters: by module, those that are written.
        """

    # Reading.

    def claims(self, config: Mapping[str, Any]) -> bool:
        """Return whether a configuration of PEFT's is of this kind."""
        return config.get("peft_type") == self.peft_type

    @abstractmethod
    def numbers(self, config: Mapping[str, Any]) -> tuple[Any, Any, Any]:
        """Return rank, alpha and dropout as a configuration has them, not checked yet."""

    def unsupported(self, config: Mapping[str, Any]) -> list[str]:
        """Return the known keys of a configuration whose values would change the arithmetic."""
        del config
        return []

    def rank_pattern(self, config: Mapping[str, Any]) -> dict[str, int]:
        """Return the ranks of modules that have another than the configuration's `r`."""
        return config.get("rank_pattern") or {}

    @abstractmethod
    def read_part(
        self, module: str, found: dict[str, Tensor], options: PeftOptions
    ) -> SavedPart | None:
        """Check one module's tensors, all of which are there; None where none of it is left.

        Raises:
            AdapterError: one does not fit the others or the configuration.
        """

    def check_shared(self, shared: Mapping[str, Tensor], options: PeftOptions) -> None:
        """Check what belongs to no module.

        Raises:
            AdapterError: it does not fit the configuration.
        """
        del shared, options

    @abstractmethod
    def shape(
        self, module: str, part: SavedPart, options: PeftOptions, base: Base
    ) -> tuple[int, int]:
        """Return (out, in) of the weight that a part is for; what it does not say is the base's."""

    @abstractmethod
    def restore(
        self,
        parts: Mapping[str, SavedPart],
        found: Mapping[str, Base],
        options: PeftOptions,
        shared: Mapping[str, Tensor],
    ) -> dict[str, Adapter]:
        """Make the adapters of a folder that was read, with their values, in the order of `parts`.

        Args:
            parts: by module, all of them among `found`.
            found: base layers by path.
            options: of the folder.
            shared: what belongs to no module, by name in the file.
        """


_KINDS: dict[str, AdapterKind] = {}


def register(cls: type[AdapterKind]) -> type[AdapterKind]:
    """Enter a kind under its name; a decorator."""
    assert cls.name not in _KINDS, f"two kinds of adapters are called {cls.name}"
    _KINDS[cls.name] = cls()
    return cls


@cache
def kinds() -> tuple[AdapterKind, ...]:
    """Return every kind, by name; the modules of `kinds/` are imported for it."""
    package = import_module("etude.tuning.adapters.kinds")
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        import_module(module.name)
    return tuple(_KINDS[name] for name in sorted(_KINDS))


def kind(name: str) -> AdapterKind:
    """Return the kind of this name.

    Raises:
        AdapterError: there is none.
    """
    kinds()
    if name not in _KINDS:
        raise AdapterError(f"there is no adapter.kind {name!r}; known: {', '.join(sorted(_KINDS))}")
    return _KINDS[name]


@cache
def adapter_tensors() -> dict[str, AdapterTensor]:
    """Return what any kind trains, by the tensors' names."""
    return {tensor.name: tensor for one in kinds() for tensor in one.tensors}


def claimant(config: Mapping[str, Any], folder: Path) -> AdapterKind:
    """Return the kind that the configuration in `folder`, PEFT's, is of.

    Raises:
        AdapterError: none of those here.
    """
    for one in kinds():
        if one.claims(config):
            return one
    known = ", ".join(sorted({one.peft_type for one in kinds()}))
    raise AdapterError(
        f"{folder} is a {config.get('peft_type')} adapter; only {known} are supported"
    )


def copy_trained(adapter: Adapter, part: SavedPart) -> Adapter:
    """Give an adapter the values of a part that was read."""
    with torch.no_grad():
        for name, parameter in adapter.trained().items():
            parameter.copy_(part.tensors[name])
    return adapter


def refuse_but_linear(kind: str, path: str, base: nn.Module) -> None:
    """Refuse what is no Linear.

    Raises:
        AdapterError: it is an embedding or a convolution.
    """
    if not isinstance(base, bases.LinearLike):
        raise AdapterError(f"{kind} goes on Linear layers only, and {path} is none")
