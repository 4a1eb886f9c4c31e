"""Putting a new adapter on a model: which modules, what kind, and its first values."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import cast

import torch
from torch import Tensor, nn

from etude.core.errors import AdapterError, NoTargetMatchedError, did_you_mean
from etude.core.progress import Progress, SilentProgress
from etude.tuning.adapters import bases, init
from etude.tuning.adapters.adalora import AdaLoRA
from etude.tuning.adapters.bases import Base
from etude.tuning.adapters.layer import AdaptedLayer
from etude.tuning.adapters.lora import LoRA, LowRank, Taken
from etude.tuning.adapters.modules_to_save import ModuleToSave, find_saved, tied_to
from etude.tuning.adapters.multi_adapter import (
    DEFAULT,
    AdaptedModule,
    adapted_layers,
    describe,
    refuse_name,
    replace_module,
    set_adapter,
)
from etude.tuning.adapters.targets import (
    adaptable_modules,
    find_targets,
    is_pattern,
    name_matches,
)
from etude.tuning.adapters.vera import Projections, VeRA
from etude.tuning.config.sections.adapter import AdapterSpec
from etude.tuning.quant.linear import QuantLinear

REWRITES = ("pissa", "olora", "loftq")
"""Starts that read the whole base and may write another one."""

Original = Callable[[str], Tensor]
"""From a module's path to its weight as it was before quantisation, (out, in) float32."""


def add_adapter(
    model: nn.Module,
    spec: AdapterSpec,
    *,
    seed: int,
    name: str = DEFAULT,
    original: Original | None = None,
    progress: Progress | None = None,
) -> list[AdaptedModule]:
    """Put a new adapter on the target modules of `model`, in place; freeze all else.

    It becomes the only active one. Each module's part is drawn from a generator seeded by `seed`
    and the module's name, so that neither the order of the modules nor the presence of others
    changes it.

    Args:
        model: a base, with other adapters or without.
        spec: the recipe's.
        seed: of the first values.
        name: what the adapter is called.
        original: where the weights before quantisation are to be had; only starts that need them
            ask (`pissa`, `olora`, `loftq` on a quantised base).
        progress: told of a start that takes long.

    Returns:
        What was adapted, in the model's order.

    Raises:
        NoTargetMatchedError: an entry of the targets, or of a pattern, matches nothing.
        AdapterError: the rank is larger than a matrix, the start does not fit the base, or there
            is an adapter of this name.
    """
    refuse_name(model, name)
    saved = find_saved(model, spec.modules_to_save)
    paths = [path for path in find_targets(model, spec.target_modules) if path not in saved]
    found = adaptable_modules(model)
    settings = _settings(paths, spec)
    for path in paths:
        _refuse_misfit(path, found[path], settings[path][0], spec)
    if spec.init in REWRITES:
        _refuse_second_rewriting(model, paths)
    adapters = _build({path: found[path] for path in paths}, settings, spec, seed)
    _attach(model, adapters, name)
    _attach_saved(model, saved, name)
    _start(model, name, spec, seed, original, progress or SilentProgress())
    set_adapter(model, name, trainable=True)
    return describe(model, name)


def inject(model: nn.Module, adapters: dict[str, LowRank], saved: list[str], name: str) -> None:
    """Put ready-made adapters on modules, and copies on `saved` ones; they become active, frozen.

    For what is loaded or combined; `add_adapter` is for new ones.
    """
    refuse_name(model, name)
    _attach(model, adapters, name)
    _attach_saved(model, saved, name)
    set_adapter(model, name)


def _settings(paths: list[str], spec: AdapterSpec) -> dict[str, tuple[int, float]]:
    """Return rank and alpha of each module; the last pattern that matches counts.

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
            hit = [
                path
                for path in paths
                if (
                    fnmatchcase(path, pattern)
                    if is_pattern(pattern)
                    else name_matches(path, pattern)
                )
            ]
            if not hit:
                hint = did_you_mean(pattern, {path.rpartition(".")[2] for path in paths})
                raise NoTargetMatchedError(
                    f"adapter.{key}: {pattern!r} matches none of the adapted modules{hint}"
                )
            values.update(dict.fromkeys(hit, cast("int", value)))
    return {path: (ranks[path], alphas[path]) for path in paths}


def _refuse_misfit(path: str, base: Base, rank: int, spec: AdapterSpec) -> None:
    bases.refuse_unfit(path, base)
    features, out = bases.sizes(base)
    if spec.kind == "vera":
        if not isinstance(base, bases.LinearLike):
            raise AdapterError(f"VeRA goes on Linear layers only, and {path} is none")
        return
    if rank > min(features, out):
        raise AdapterError(
            f"adapter.rank {rank} is larger than {path}, a matrix of {out} × {features}; use at "
            f"most {min(features, out)}, or leave it out of adapter.target_modules"
        )
    if spec.init == "loftq" and not isinstance(base, QuantLinear):
        raise AdapterError(
            f"adapter.init: loftq makes up for quantising the base, and {path} is not quantised; "
            "set quant.kind, or another start"
        )
    if spec.init in REWRITES and isinstance(base, QuantLinear) and base.spec.kind == "native":
        raise AdapterError(
            f"adapter.init: {spec.init} writes another base, and quant.kind: native keeps the "
            "file's own; set quant.kind: nf4"
        )


def _refuse_second_rewriting(model: nn.Module, paths: list[str]) -> None:
    layers = adapted_layers(model)
    twice = [path for path in paths if path in layers]
    if twice:
        raise AdapterError(
            f"this start writes another base, and {twice[0]} serves another adapter already; "
            "load the base anew"
        )


def _build(
    found: dict[str, Base], settings: dict[str, tuple[int, float]], spec: AdapterSpec, seed: int
) -> dict[str, LowRank]:
    """Make the adapters, their values still to come."""
    if spec.kind == "vera":
        widths = [bases.sizes(base) for base in found.values()]
        projections = Projections.draw(
            spec.rank, max(w for w, _ in widths), max(h for _, h in widths), seed
        )
        return {path: VeRA(base, projections, spec.dropout) for path, base in found.items()}
    adapters: dict[str, LowRank] = {}
    for path, base in found.items():
        rank, alpha = settings[path]
        if spec.kind == "adalora":
            first = spec.adalora.initial_rank or -(-3 * rank // 2)
            adapters[path] = AdaLoRA(base, min(first, *bases.sizes(base)), alpha, spec.dropout)
        else:
            adapters[path] = LoRA(
                base,
                rank,
                alpha,
                spec.dropout,
                rslora=spec.rslora,
                dora=spec.kind == "dora",
                rounding=spec.factors if spec.factors.when == "training" else None,
            )
    return adapters


def _attach(model: nn.Module, adapters: dict[str, LowRank], name: str) -> None:
    for path, adapter in adapters.items():
        module = model.get_submodule(path)
        layer = module
        if not isinstance(layer, AdaptedLayer):
            layer = AdaptedLayer(cast("Base", module)).train(module.training)
            replace_module(model, path, layer)
        layer.adapters[name] = adapter.train(layer.training)


def _attach_saved(model: nn.Module, paths: list[str], name: str) -> None:
    for path in paths:
        module = model.get_submodule(path)
        if not isinstance(module, ModuleToSave):
            if isinstance(module, AdaptedLayer):
                raise AdapterError(f"{path} carries a low-rank adapter; it cannot be trained whole")
            others = tied_to(model, path)
            wrapped = ModuleToSave(module).train(module.training)
            replace_module(model, path, wrapped)
            for other in others:
                # One copy for both, as the weight was one: what is tied stays tied.
                replace_module(
                    model, other, ModuleToSave(model.get_submodule(other), wrapped.copies)
                )
            module = wrapped
        module.add(name)


def _start(
    model: nn.Module,
    name: str,
    spec: AdapterSpec,
    seed: int,
    original: Original | None,
    progress: Progress,
) -> None:
    """Give every part of a new adapter its first values."""
    layers = {path: la for path, la in adapted_layers(model).items() if name in la.named()}
    slow = spec.init in REWRITES
    if slow:
        progress.start(f"Starting the adapter ({spec.init})", len(layers), "modules")
    for path, layer in layers.items():
        generator = _generator(seed, path)
        adapter = layer.named()[name]
        if isinstance(adapter, VeRA):
            adapter.reset(spec.vera_initial)
        elif isinstance(adapter, AdaLoRA):
            adapter.reset(generator)
        elif isinstance(adapter, LoRA):
            adapter.reset(layer.base, generator)
            if spec.init != "default":
                weight = None
                if slow:
                    weight = _original_weight(layer.base, path, original)
                start = _first_values(adapter, layer, spec, weight, generator)
                apply_init(layer, name, start, weight)
        if slow:
            progress.advance(1)
    if slow:
        progress.finish()


@torch.no_grad()
def apply_init(layer: AdaptedLayer, name: str, start: init.FactorInit, W: Tensor | None) -> None:
    """Set the factors of adapter `name`, and take off the base what the start says.

    Args:
        layer: with the adapter, a LoRA.
        name: of the adapter.
        start: its first values.
        W: the weight before quantisation, (out, in) float32; wanted if something is taken off.
    """
    base, adapter = layer.base, cast("LoRA", layer.named()[name])
    adapter.lora_A.copy_(start.A)
    adapter.lora_B.copy_(start.B)
    if start.taken is not None:
        assert W is not None
        A0, B0 = start.taken
        bases.write_matrix(base, W - adapter.scaling * (B0 @ A0).to(W))
        layer.taken = Taken(base, name, A0, B0, adapter.scaling)


def _first_values(
    adapter: LoRA,
    layer: AdaptedLayer,
    spec: AdapterSpec,
    W: Tensor | None,
    generator: torch.Generator,
) -> init.FactorInit:
    base = layer.base
    rank, scaling, iterations = adapter.rank, adapter.scaling, spec.svd_iterations
    out, features = adapter.out_features, adapter.in_features
    if spec.init == "gaussian":
        return init.gaussian(out, features, rank, generator)
    if spec.init == "orthogonal":
        return init.orthogonal(out, features, rank, generator)
    assert W is not None
    if spec.init == "pissa":
        return init.pissa(W, rank, scaling, iterations, generator)
    if spec.init == "olora":
        return init.olora(W, rank, scaling)
    quantized = cast("QuantLinear", base)

    def requantize(weight: Tensor) -> Tensor:
        quantized.overwrite(weight)
        return quantized.dequantize(torch.float32)

    rounds = spec.loftq_iterations
    start = init.loftq(
        W, rank, scaling, iterations, generator, requantize=requantize, rounds=rounds
    )
    if start.taken is None:
        quantized.overwrite(W)
    return start


def _original_weight(base: Base, path: str, original: Original | None) -> Tensor:
    if not isinstance(base, QuantLinear):
        return bases.read_matrix(base)
    if original is None:
        raise AdapterError(
            f"{path} is quantised, and this start needs its weight as it was before; "
            "give the model's origin"
        )
    return original(path)


def _generator(seed: int, name: str) -> torch.Generator:
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
