"""Adding adapters to a model: target modules, wrapping and initialisation."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from etude.core.errors import AdapterError, NoTargetMatchedError, did_you_mean
from etude.core.progress import Progress, SilentProgress
from etude.tuning.adapters import bases, init, registry
from etude.tuning.adapters.adapter import Adapter
from etude.tuning.adapters.bases import Base, LinearLike
from etude.tuning.adapters.compatibility import SavedRows
from etude.tuning.adapters.experts import find_parameters, open_experts
from etude.tuning.adapters.kinds.lora import LoRA
from etude.tuning.adapters.layer import AdaptedLayer
from etude.tuning.adapters.low_rank import Taken
from etude.tuning.adapters.modules_to_save import (
    ModuleToSave,
    Ties,
    attach_saved,
    find_saved,
    untie,
)
from etude.tuning.adapters.multi_adapter import (
    DEFAULT,
    AdaptedModule,
    adapted_layers,
    describe,
    refuse_name,
    set_adapter,
)
from etude.tuning.adapters.targets import (
    adaptable_modules,
    entry_matches,
    find_targets,
    in_layers,
    means_experts_to_peft,
    replace_module,
    with_bias,
)
from etude.tuning.adapters.trained_rows import TrainedRows
from etude.tuning.config.sections.adapter import AdapterSpec
from etude.tuning.models.added_tokens import begin_rows, matrices, mean_row
from etude.tuning.quant.linear import QuantLinear

Original = Callable[[str], Tensor]
"""Maps a module's path to its weight before quantisation, (out, in) float32."""


def add_adapter(
    model: nn.Module,
    spec: AdapterSpec,
    *,
    seed: int,
    name: str = DEFAULT,
    original: Original | None = None,
    progress: Progress | None = None,
    tokens: Sequence[int] = (),
) -> list[AdaptedModule]:
    """Add a new adapter to the target modules of `model`, in place; freeze everything else.

    It becomes the only active one. Each module's values are drawn from a generator seeded by `seed`
    and the module's name, so they depend neither on the order of the modules nor on other modules.

    Args:
        model: a base, with or without other adapters.
        spec: the recipe's `adapter` section.
        seed: seed of the initial values.
        name: name of the adapter.
        original: returns the weights before quantisation; used only by initialisations that
            need them (`pissa`, `olora`, `loftq` on a quantised base).
        progress: reports a slow initialisation.
        tokens: numbers of added tokens, whose rows of embedding and output matrix are trained.

    Returns:
        The adapted modules, in the model's order.

    Raises:
        NoTargetMatchedError: a target or pattern matches nothing.
        AdapterError: nothing would be trained, the rank exceeds a matrix, the initialisation does
            not suit the base, or the name is already in use.
    """
    refuse_name(model, name)
    saved = find_saved(model, spec.modules_to_save)
    targets = [] if spec.kind == registry.HEAD else targets_of(model, spec)
    parameters = find_parameters(model, spec.target_parameters, spec.layers)
    open_experts(model, parameters)
    paths = [path for path in targets if path not in saved] + parameters
    if not paths and not saved and not tokens:
        raise AdapterError("nothing would be trained: adapter.modules_to_save names no module")
    found = adaptable_modules(model)
    settings = settings_of(paths, spec)
    kind = registry.kind(spec.kind)
    start = init.initialisation(spec.init)
    for path in paths:
        bases.refuse_unfit(path, found[path])
        kind.refuse_misfit(path, found[path], settings[path][0])
        start.refuse_misfit(path, found[path])
        if spec.kind == "dora" and means_experts_to_peft(model, path):
            raise AdapterError(
                f"PEFT takes the name of {path} for that of the experts' weights and cannot hold "
                "DoRA there: leave it out of adapter.target_modules, or use adapter.kind: lora"
            )
    if start.rewrites_base:
        _refuse_second_rewriting(model, paths)
    adapters = kind.build({path: found[path] for path in paths}, settings, spec, seed)
    _attach(model, adapters, name)
    attach_saved(model, saved, name)
    if tokens:
        attach_tokens(model, tokens, name)
    if spec.bias != "none":
        attach_biases(model, with_bias(model, paths if spec.bias == "lora_only" else None), name)
    _start(model, name, spec, seed, original, progress or SilentProgress())
    set_adapter(model, name, trainable=True)
    return describe(model, name)


def inject(
    model: nn.Module,
    adapters: dict[str, Adapter],
    saved: list[str],
    name: str,
    *,
    ties: Ties | None = None,
    biases: list[str] | None = None,
    rows: Mapping[str, SavedRows] | None = None,
) -> None:
    """Add existing adapters to modules, and copies to `saved` ones; they become active, frozen.

    For loaded or combined adapters; `add_adapter` is for new ones.

    Args:
        model: the base.
        adapters: by the path of their module.
        saved: modules with a copy of their own.
        name: name of the adapter.
        ties: whether the copies of two modules that share a weight are one; None: always.
        biases: modules of which only the bias is trained.
        rows: trained rows of weights, by module; what is tied to one has them as well, if it has
            none of its own.
    """
    refuse_name(model, name)
    _attach(model, adapters, name)
    attach_saved(model, saved, name, ties=ties)
    for path, trained in (rows or {}).items():
        attach_saved(
            model,
            [path],
            name,
            ties=partial(_shares_rows, trained, rows or {}),
            rows=(trained.ids, trained.values.to(cast("Any", model).device)),
        )
    attach_biases(model, biases or [], name)
    set_adapter(model, name)


def _shares_rows(trained: SavedRows, every: Mapping[str, SavedRows], one: str, two: str) -> bool:
    del one
    return trained.tied and two not in every


def attach_biases(model: nn.Module, paths: list[str], name: str) -> None:
    """Give the modules at `paths` a trainable bias for the adapter `name`."""
    for path in paths:
        module = model.get_submodule(path)
        if isinstance(module, LinearLike):
            module = AdaptedLayer(module).train(module.training)
            replace_module(model, path, module)
        if isinstance(module, AdaptedLayer):
            module.add_bias(name)
        else:
            attach_saved(model, [path], name, only="bias")


def attach_tokens(model: nn.Module, ids: Sequence[int], name: str) -> None:
    """Make the rows of added tokens trainable, beginning as the mean of the others.

    Matrices that the adapter `name` trains whole have theirs among all rows.

    Raises:
        AdapterError: a matrix has an adapter, or the output matrix a bias.
    """
    for path, module in matrices(model).items():
        own = module.copy_of(name) if isinstance(module, ModuleToSave) else None
        if isinstance(own, TrainedRows):
            continue  # of the matrix that this one is tied to
        if own is not None:
            begin_rows(cast("Tensor", own.weight), ids)
            continue
        base: Any = module.base if isinstance(module, ModuleToSave | AdaptedLayer) else module
        if getattr(base, "bias", None) is not None:
            raise AdapterError(
                f"{path} has a bias, which PEFT leaves out where rows of added tokens are trained; "
                f"train all of it: adapter.modules_to_save: [{path}]"
            )
        values = mean_row(base.weight).expand(len(ids), -1)
        attach_saved(model, [path], name, rows=(ids, values))


def targets_of(model: nn.Module, spec: AdapterSpec) -> list[str]:
    """Return the paths of the modules that a recipe adapts, in the model's order.

    Raises:
        NoTargetMatchedError: a name, a pattern or the number of a layer matches nothing.
    """
    if spec.target_parameters and not spec.target_modules:
        return []
    return in_layers(model, find_targets(model, spec.target_modules), spec.layers)


def settings_of(paths: list[str], spec: AdapterSpec) -> dict[str, tuple[int, float]]:
    """Return rank and alpha of each module; the last matching pattern applies.

    Raises:
        NoTargetMatchedError: a pattern matches no target module.
    """
    ranks = dict.fromkeys(paths, spec.rank)
    alphas = dict.fromkeys(paths, spec.alpha)
    for key, patterns, values in (
        ("rank_pattern", spec.rank_pattern, ranks),
        ("alpha_pattern", spec.alpha_pattern, alphas),
    ):
        for pattern, value in patterns.items():
            hit = [path for path in paths if entry_matches(path, pattern)]
            if not hit:
                hint = did_you_mean(pattern, {path.rpartition(".")[2] for path in paths})
                raise NoTargetMatchedError(
                    f"adapter.{key}: {pattern!r} matches none of the adapted modules{hint}"
                )
            values.update(dict.fromkeys(hit, cast("int", value)))
    return {path: (ranks[path], alphas[path]) for path in paths}


def _refuse_second_rewriting(model: nn.Module, paths: list[str]) -> None:
    layers = adapted_layers(model)
    twice = [path for path in paths if path in layers]
    if twice:
        raise AdapterError(
            f"this initialisation rewrites the base, but {twice[0]} already has another adapter; "
            "reload the base"
        )


def _attach(model: nn.Module, adapters: dict[str, Adapter], name: str) -> None:
    for path, adapter in adapters.items():
        module = model.get_submodule(path)
        layer = module
        if not isinstance(layer, AdaptedLayer):
            layer = AdaptedLayer(cast("Base", module)).train(module.training)
            replace_module(model, path, layer)
        layer.adapters[name] = adapter.train(layer.training)


def _start(
    model: nn.Module,
    name: str,
    spec: AdapterSpec,
    seed: int,
    original: Original | None,
    progress: Progress,
) -> None:
    """Initialise every module of a new adapter."""
    layers = {path: la for path, la in adapted_layers(model).items() if name in la.named()}
    start = init.initialisation(spec.init)
    slow = start.rewrites_base
    if slow:
        progress.start(f"Initialising the adapter ({spec.init})", len(layers), "modules")
    for path, layer in layers.items():
        generator = _generator(seed, path)
        adapter = layer.named()[name]
        adapter.reset(layer.base, generator)
        if start.make is not None:
            weight = _original_weight(layer.base, path, original) if slow else None
            chosen = init.Layer(layer.base, cast("LoRA", adapter), weight, spec, generator)
            begun = start.make(chosen)
            if begun.taken is not None:
                untie(model, path)
            apply_init(layer, name, begun, weight)
        if slow:
            progress.advance(1)
    if slow:
        progress.finish()


@torch.no_grad()
def apply_init(layer: AdaptedLayer, name: str, start: init.FactorInit, W: Tensor | None) -> None:
    """Set the factors of adapter `name`, and subtract the initial part from the base.

    Args:
        layer: the layer with the adapter, a LoRA.
        name: name of the adapter.
        start: its initial values.
        W: the weight before quantisation, (out, in) float32; required if a part is subtracted.
    """
    base, adapter = layer.base, cast("LoRA", layer.named()[name])
    adapter.lora_A.copy_(start.A)
    adapter.lora_B.copy_(start.B)
    if start.taken is not None:
        assert W is not None
        A0, B0 = start.taken
        bases.write_matrix(base, W - adapter.scaling * (B0 @ A0).to(W))
        layer.taken = Taken(base, name, A0, B0, adapter.scaling)


def _original_weight(base: Base, path: str, original: Original | None) -> Tensor:
    if not isinstance(base, QuantLinear):
        return bases.read_matrix(base)
    if original is None:
        raise AdapterError(
            f"{path} is quantised, and this initialisation needs its original weight; "
            "pass the model's origin"
        )
    return original(path).to(bases.device(base))


def _generator(seed: int, name: str) -> torch.Generator:
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
