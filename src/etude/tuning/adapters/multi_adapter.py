"""Multiple adapters on one model: naming, activation and removal.

Active adapters are summed; without active ones the model is its base. Each row of a batch may use a
different adapter (`adapter_rows`), so one base in memory can serve many fine-tuned models.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

from torch import nn

from etude.core.errors import AdapterError, did_you_mean
from etude.tuning.adapters.adapter import Adapter
from etude.tuning.adapters.layer import AdaptedLayer
from etude.tuning.adapters.modules_to_save import ModuleToSave, saved_modules
from etude.tuning.adapters.targets import named_modules, replace_module

DEFAULT = "default"
"""Default adapter name, as in PEFT."""


@dataclass(frozen=True)
class AdaptedModule:
    """An adapted layer, as listed in the report."""

    name: str
    """Dotted path in the model."""
    in_features: int
    out_features: int
    rank: int
    parameters: int
    """Number of trained weights; rank * (in_features + out_features) for LoRA."""


def adapted_layers(model: nn.Module) -> dict[str, AdaptedLayer]:
    """Return the adapted layers of `model` by their dotted paths."""
    return {name: m for name, m in named_modules(model) if isinstance(m, AdaptedLayer)}


def adapters_named(model: nn.Module, name: str = DEFAULT) -> dict[str, Adapter]:
    """Return the modules of one adapter by path."""
    return {
        path: layer.named()[name]
        for path, layer in adapted_layers(model).items()
        if name in layer.named()
    }


def adapter_names(model: nn.Module) -> list[str]:
    """Return the names of all adapters of `model`, in order of addition."""
    names: dict[str, None] = {}
    for layer in adapted_layers(model).values():
        names.update(dict.fromkeys([*layer.named(), *layer.biases.keys()]))
    for module in saved_modules(model).values():
        names.update(dict.fromkeys(module.copies.keys()))
    return list(names)


def adapter_parameters(model: nn.Module, name: str = DEFAULT) -> dict[str, nn.Parameter]:
    """Return one adapter's parameters: `….q_proj.lora_A`, `….q_proj.lora_B`, `lm_head.weight`.

    A copy shared by tied modules is listed once, under the first of them.
    """
    found = {
        f"{path}.{part}": parameter
        for path, adapter in adapters_named(model, name).items()
        for part, parameter in adapter.trained().items()
    }
    for path, layer in adapted_layers(model).items():
        if name in layer.biases:
            found[f"{path}.bias"] = cast("nn.Parameter", layer.biases[name])
    seen: set[int] = set()
    for path, module in saved_modules(model).items():
        if name not in module.copies:
            continue
        for part, parameter in module.copies[name].named_parameters():
            if id(parameter) not in seen:
                found[f"{path}.{part}"] = parameter
                seen.add(id(parameter))
    return found


def describe(model: nn.Module, name: str = DEFAULT) -> list[AdaptedModule]:
    """Return the adapted layers of an adapter, for the report."""
    return [
        AdaptedModule(
            path,
            adapter.in_features,
            adapter.out_features,
            adapter.rank,
            sum(parameter.numel() for parameter in adapter.trained().values()),
        )
        for path, adapter in adapters_named(model, name).items()
    ]


def set_adapter(
    model: nn.Module, names: str | Sequence[str] | None, *, trainable: bool = False
) -> None:
    """Activate adapters and set whether they are trainable; everything else is frozen.

    Args:
        model: the model with these adapters.
        names: one name, several (their changes are summed), or None for the base.
        trainable: whether their weights require gradients.

    Raises:
        AdapterError: there is no adapter of such a name.
    """
    chosen = (names,) if isinstance(names, str) else tuple(names or ())
    known = adapter_names(model)
    for name in chosen:
        refuse_unknown(name, known)
    model.requires_grad_(False)
    for layer in adapted_layers(model).values():
        layer.active = chosen
    for module in saved_modules(model).values():
        module.active = chosen
    if trainable:
        for name in chosen:
            for parameter in adapter_parameters(model, name).values():
                parameter.requires_grad_(True)


def delete_adapter(model: nn.Module, name: str) -> None:
    """Remove one adapter; layers without adapters are unwrapped.

    Raises:
        AdapterError: there is no adapter of this name.
    """
    refuse_unknown(name, adapter_names(model))
    for path, layer in adapted_layers(model).items():
        if name in layer.adapters:
            del layer.adapters[name]
        if name in layer.biases:
            del layer.biases[name]
        layer.active = tuple(other for other in layer.active if other != name)
        if not layer.adapters and not layer.biases:
            replace_module(model, path, layer.base)
    for path, module in saved_modules(model).items():
        if name in module.copies:
            del module.copies[name]
        module.active = tuple(other for other in module.active if other != name)
        if not module.copies:
            replace_module(model, path, module.base)


@contextmanager
def adapter_disabled(model: nn.Module) -> Generator[None]:
    """Context manager: disable all adapters of `model`."""
    switched: list[AdaptedLayer | ModuleToSave] = [
        module
        for module in [*adapted_layers(model).values(), *saved_modules(model).values()]
        if module.enabled
    ]
    try:
        for module in switched:
            module.enabled = False
        yield
    finally:
        for module in switched:
            module.enabled = True


@contextmanager
def adapter_rows(model: nn.Module, rows: Sequence[str | None]) -> Generator[None]:
    """Context manager: compute row i of every batch with adapter `rows[i]`; None: with the base.

    The base's product is computed once for all rows; each adapter adds its change to its own rows.

    Raises:
        AdapterError: a name is unknown, or its adapter has fully trained modules, which are
            shared by the whole batch.
    """
    known = adapter_names(model)
    for name in rows:
        if name is None:
            continue
        refuse_unknown(name, known)
        biases = any(name in layer.biases for layer in adapted_layers(model).values())
        if biases or any(name in module.copies for module in saved_modules(model).values()):
            raise AdapterError(
                f"adapter {name!r} has {'trained biases' if biases else 'fully trained modules'}, "
                "which cannot differ within a batch"
            )
    layers = list(adapted_layers(model).values())
    try:
        for layer in layers:
            layer.rows = list(rows)
        yield
    finally:
        for layer in layers:
            layer.rows = None


def refuse_name(model: nn.Module, name: str) -> None:
    """Refuse an adapter name that is in use or invalid.

    Raises:
        AdapterError: the name is in use or invalid.
    """
    if not name or "." in name:
        raise AdapterError(f"invalid adapter name {name!r}: it must be a word without dots")
    if name in adapter_names(model):
        raise AdapterError(
            f"the model already has an adapter {name!r}; reload the base, delete that adapter, "
            "or choose another name"
        )


def refuse_unknown(name: str, known: list[str]) -> None:
    """Refuse an adapter name that is not in `known`.

    Raises:
        AdapterError: the name is unknown.
    """
    if name not in known:
        listed = ", ".join(known) or "none"
        raise AdapterError(
            f"there is no adapter {name!r}{did_you_mean(name, known)}; the model has: {listed}"
        )
