"""Registry of adapter kinds.

A kind is a module of `kinds/`: the class of its adapters (`adapter.Adapter`), and an `AdapterKind`
that defines how one is added to a model, written, read and trained. `register` adds it under its
name in recipes; code that depends on the kind of an adapter calls `kind(name)`. The recipe keys are
separate (`config/sections/adapter.py`), so that recipes can be read without importing torch.
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
    """A trained tensor of an adapter kind."""

    name: str
    """Its name in `Adapter.trained` and PEFT: `lora_A`."""
    ending: str
    """Ending of its name in a file: `lora_A.weight`."""
    embedding: str | None = None
    """Ending for embeddings, if it differs."""
    decays: bool = True
    """Whether weight decay applies; only if zero means no change."""
    up: bool = False
    """Whether it is the factor U of LoRA+ (`train.loraplus_lr_ratio`)."""

    @property
    def endings(self) -> tuple[str, ...]:
        """All possible endings in a file; PEFT has also written them without `.weight`."""
        short = self.ending.removesuffix(".weight")
        every = self.ending, short, self.embedding
        return tuple(dict.fromkeys(ending for ending in every if ending is not None))


Settings = tuple[int, float]
"""Rank and alpha of a module."""


class AdapterKind(ABC):
    """An adapter kind, with defaults for what most kinds share."""

    name: ClassVar[str]
    """Its name in `adapter.kind`."""

    read_as: ClassVar[str | None] = None
    """Kind that saved folders are read as; None: this one."""

    peft_type: ClassVar[str]
    """`peft_type` of PEFT configurations."""

    tensors: ClassVar[tuple[AdapterTensor, ...]]
    """Its trained tensors."""

    config_keys: ClassVar[frozenset[str]]
    """Keys of PEFT's configuration, beside those of all kinds, that are read here or that have no
    effect after training."""

    shared_keys: ClassVar[frozenset[str]] = frozenset()
    """Names in the file of tensors shared by all modules."""

    beyond_factors: ClassVar[str | None] = None
    """Content of a saved adapter beyond pairs of factors, for messages; None for a plain LoRA."""

    least_rank: ClassVar[int] = 1
    """Smallest valid rank; 0 if the kind has no rank."""

    trains_biases: ClassVar[bool] = False
    """Whether PEFT's `bias` and `trainable_token_indices` are read."""

    may_leave_out: ClassVar[bool] = False
    """Whether a module that the configuration targets may be missing from the file."""

    # Adding to a model.

    @abstractmethod
    def refuse_misfit(self, path: str, base: Base, rank: int) -> None:
        """Refuse a module that does not support this kind.

        Raises:
            AdapterError: the module is not supported.
        """

    @abstractmethod
    def build(
        self, found: dict[str, Base], settings: dict[str, Settings], spec: AdapterSpec, seed: int
    ) -> dict[str, Adapter]:
        """Create the adapters of all modules, not yet initialised (`Adapter.reset`).

        Args:
            found: base layers by path.
            settings: rank and alpha by path.
            spec: the recipe's `adapter` section.
            seed: seed of tensors shared by the modules.

        Raises:
            NoTargetMatchedError: a key of this kind matches no module.
        """

    # Training.

    def callbacks(self, adapters: Mapping[str, Adapter], spec: AdapterSpec) -> list[Callback]:
        """Return the callbacks that act on the adapters during training."""
        del adapters, spec
        return []

    # Writing.

    @abstractmethod
    def written(self, adapter: Adapter, base: Base, taken: Taken | None) -> WrittenPart | None:
        """Return the tensors to write for one module; None if all were pruned.

        Args:
            adapter: the module's adapter.
            base: its layer.
            taken: the part that the initialisation subtracted from the base, or None.
        """

    def shared(self, adapters: Sequence[Adapter]) -> dict[str, Tensor]:
        """Return the tensors shared by all modules, by name in the file."""
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
            common: the keys shared by all kinds.
            spec: the recipe's `adapter` section.
            parts: written parts by module.
            adapters: written adapters by module.
        """

    # Reading.

    def claims(self, config: Mapping[str, Any]) -> bool:
        """Return whether a PEFT configuration is of this kind."""
        return config.get("peft_type") == self.peft_type

    @abstractmethod
    def numbers(self, config: Mapping[str, Any]) -> tuple[Any, Any, Any]:
        """Return rank, alpha and dropout from a configuration, not yet validated."""

    def unsupported(self, config: Mapping[str, Any]) -> list[str]:
        """Return the known keys of a configuration whose values would change the arithmetic."""
        del config
        return []

    def rank_pattern(self, config: Mapping[str, Any]) -> dict[str, int]:
        """Return the ranks of modules that differ from the configuration's `r`."""
        return config.get("rank_pattern") or {}

    @abstractmethod
    def read_part(
        self, module: str, found: dict[str, Tensor], options: PeftOptions
    ) -> SavedPart | None:
        """Validate one module's tensors (none missing); None if all ranks were pruned.

        Raises:
            AdapterError: a tensor does not fit the others or the configuration.
        """

    def check_shared(self, shared: Mapping[str, Tensor], options: PeftOptions) -> None:
        """Validate the tensors shared by all modules.

        Raises:
            AdapterError: they do not fit the configuration.
        """
        del shared, options

    @abstractmethod
    def shape(
        self, module: str, part: SavedPart, options: PeftOptions, base: Base
    ) -> tuple[int, int]:
        """Return (out, in) of a part's weight; unknown sizes are the base's."""

    @abstractmethod
    def restore(
        self,
        parts: Mapping[str, SavedPart],
        found: Mapping[str, Base],
        options: PeftOptions,
        shared: Mapping[str, Tensor],
    ) -> dict[str, Adapter]:
        """Create the adapters of a saved folder, in the order of `parts`.

        Args:
            parts: parts by module, all of them in `found`.
            found: base layers by path.
            options: the folder's options.
            shared: tensors shared by all modules, by name in the file.
        """


HEAD = "head"
"""Name in `adapter.kind` of an adapter that consists of fully trained modules only."""

_KINDS: dict[str, AdapterKind] = {}


def register(cls: type[AdapterKind]) -> type[AdapterKind]:
    """Decorator: register a kind by its name."""
    assert cls.name not in _KINDS, f"two kinds of adapters are called {cls.name}"
    _KINDS[cls.name] = cls()
    return cls


@cache
def kinds() -> tuple[AdapterKind, ...]:
    """Return every kind, by name; importing the modules of `kinds/` if needed."""
    package = import_module("etude.tuning.adapters.kinds")
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        import_module(module.name)
    return tuple(_KINDS[name] for name in sorted(_KINDS))


def kind(name: str) -> AdapterKind:
    """Return the kind of this name; a head alone is a LoRA of no modules.

    Raises:
        AdapterError: there is no such kind.
    """
    kinds()
    name = "lora" if name == HEAD else name
    if name not in _KINDS:
        raise AdapterError(f"unknown adapter.kind {name!r}; known: {', '.join(sorted(_KINDS))}")
    return _KINDS[name]


@cache
def adapter_tensors() -> dict[str, AdapterTensor]:
    """Return the trained tensors of all kinds, by name."""
    return {tensor.name: tensor for one in kinds() for tensor in one.tensors}


def claimant(config: Mapping[str, Any], folder: Path) -> AdapterKind:
    """Return the kind of the PEFT configuration in `folder`.

    Raises:
        AdapterError: the kind is not supported.
    """
    for one in kinds():
        if one.claims(config):
            return one
    known = ", ".join(sorted({one.peft_type for one in kinds()}))
    raise AdapterError(
        f"{folder} is a {config.get('peft_type')} adapter; only {known} are supported"
    )


def copy_trained(adapter: Adapter, part: SavedPart) -> Adapter:
    """Copy the values of a saved part into an adapter."""
    with torch.no_grad():
        for name, parameter in adapter.trained().items():
            parameter.copy_(part.tensors[name])
    return adapter


def refuse_but_linear(kind: str, path: str, base: nn.Module) -> None:
    """Refuse modules other than Linear.

    Raises:
        AdapterError: the module is an embedding or a convolution.
    """
    if not isinstance(base, bases.LinearLike):
        raise AdapterError(f"{kind} supports Linear layers only, and {path} is not one")
