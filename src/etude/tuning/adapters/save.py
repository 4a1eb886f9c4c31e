"""Adapters to disk and back, in PEFT's format, with a note of what they were trained on.

An adapter is a difference: on other weights than those it was trained on, it computes something,
but nothing anybody meant. So a folder is refused when a key is missing or left over, a shape does
not fit, an option would change the arithmetic in a way that is not implemented, or the base is
another one. PEFT's own folders, which lack `etude.json`, are read by the same rules (`saved`).

An adapter whose start took T = s·B₀A₀ off the base is written relative to the base as it was,
ΔW = s·B A − T, a plain LoRA of twice the rank that any program loads: the first half of the ranks
is what was trained, the second what was taken off. Here it is put together again.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save
from torch import Tensor, nn

import etude
from etude.core.atomic_files import replace_file, to_json
from etude.core.errors import AdapterError, RunError
from etude.tuning.adapters import bases, init
from etude.tuning.adapters.adalora import AdaLoRA, as_lora
from etude.tuning.adapters.bases import Base
from etude.tuning.adapters.inject import Original, apply_init, inject
from etude.tuning.adapters.layer import AdaptedLayer
from etude.tuning.adapters.lora import LoRA, LowRank
from etude.tuning.adapters.modules_to_save import saved_modules
from etude.tuning.adapters.multi_adapter import (
    DEFAULT,
    AdaptedModule,
    adapted_layers,
    describe,
    refuse_name,
    set_adapter,
)
from etude.tuning.adapters.packed_factors import PACKED, pack_factors
from etude.tuning.adapters.peft_config import CONFIG, peft_matches
from etude.tuning.adapters.read import (
    PREFIX,
    PROVENANCE,
    WEIGHTS,
    SavedAdapter,
    SavedPart,
    listed,
    read_adapter,
)
from etude.tuning.adapters.targets import (
    adaptable_modules,
    linear_modules,
    name_matches,
    named_modules,
)
from etude.tuning.adapters.vera import Projections, VeRA
from etude.tuning.config.sections.adapter import AdapterSpec
from etude.tuning.config.sections.quant import QuantSpec
from etude.tuning.models.load import ModelOrigin
from etude.tuning.quant.linear import QuantLinear

LinearOnly = nn.Linear | QuantLinear
"""Layers that store W as it is multiplied; GPT-2's Conv1D stores its transpose."""


def save_adapter(
    model: nn.Module,
    folder: str | Path,
    spec: AdapterSpec,
    origin: ModelOrigin,
    *,
    name: str = DEFAULT,
) -> None:
    """Write an adapter of `model` into `folder`; what is there is replaced, or kept whole.

    With `spec.factors.bits` the factors are written packed, as they are after rounding.

    Raises:
        AdapterError: the model has no such adapter, or one with NaN or infinity in it.
        RunError: it cannot be written; a previous adapter in the folder is still valid.
    """
    layers = {path: la for path, la in adapted_layers(model).items() if name in la.named()}
    tensors: dict[str, Tensor] = {}
    scales: dict[str, tuple[int, float]] = {}
    for path, layer in layers.items():
        part = _written_part(layer, name)
        if part is None:
            continue  # no rank of this module is left
        named, rank, alpha = part
        scales[path] = rank, alpha
        tensors |= {f"{PREFIX}{path}.{key}": value for key, value in named.items()}
    whole = _saved_tensors(model, name)
    if not tensors and not whole:
        raise AdapterError("the model has no adapter to save")
    if spec.kind == "vera":
        projections = cast("VeRA", next(iter(layers.values())).named()[name]).projections
        tensors |= {"base_model.vera_A": projections.A, "base_model.vera_B": projections.B}
    tensors = {
        key: value.detach().to("cpu", torch.float32).contiguous()
        for key, value in {**tensors, **whole}.items()
    }
    for key, value in tensors.items():
        if not torch.isfinite(value).all():
            bad = key.removeprefix(PREFIX).removesuffix(".weight")
            raise AdapterError(f"{bad} holds NaN or infinity; it is not saved")
    texts = {
        CONFIG: to_json(_peft_config(model, layers, scales, spec, origin, name), indent=2),
        PROVENANCE: to_json(_provenance(layers, spec, origin), indent=2),
    }
    packed = spec.factors.bits is not None
    content = pack_factors(tensors, spec.factors) if packed else tensors
    file, other = (PACKED, WEIGHTS) if packed else (WEIGHTS, PACKED)
    write_adapter(folder, file, content, texts)
    (Path(folder) / other).unlink(missing_ok=True)


def load_adapter(
    model: nn.Module,
    folder: str | Path,
    *,
    name: str = DEFAULT,
    origin: ModelOrigin | None = None,
    original: Original | None = None,
    trainable: bool = False,
    force: bool = False,
) -> list[AdaptedModule]:
    """Put the adapter of `folder` on `model`, in place; it becomes active, the rest is frozen.

    Args:
        model: the base, with other adapters or without.
        folder: as `save_adapter` or PEFT wrote it.
        name: what the adapter is to be called.
        origin: where `model` came from, compared with what the adapter was trained on.
        original: where weights before quantisation are to be had, for an adapter that began as a
            part of a base that is quantised.
        trainable: let the adapter be trained further.
        force: load it although the base has another fingerprint; shapes must fit all the same.

    Raises:
        AdapterError: the folder is damaged, not supported, or of another model.
    """
    refuse_name(model, name)
    saved = read_adapter(folder)
    if origin is not None and not force:
        _refuse_other_base(saved, origin)
    _refuse_other_shapes(saved, model)
    found = adaptable_modules(model)
    adapters: dict[str, LowRank] = {}
    halves: dict[str, init.FactorInit] = {}
    projections = _projections(saved, found)
    for path in (path for path in found if path in saved.parts):
        part, base = saved.parts[path], found[path]
        if saved.starts_off_base:
            part, halves[path] = _halves(part)
        adapters[path] = _read_part(part, base, saved, projections)
    inject(model, adapters, list(saved.modules), name)
    with torch.no_grad():
        for path, start in halves.items():
            layer = cast("AdaptedLayer", model.get_submodule(path))
            apply_init(layer, name, start, _weight(path, layer.base, original))
        for path, module in saved_modules(model).items():
            for part, value in saved.modules.get(path, {}).items():
                module.copies[name].get_parameter(part).copy_(value)
    set_adapter(model, name, trainable=trainable)
    return describe(model, name)


def _written_part(layer: AdaptedLayer, name: str) -> tuple[dict[str, Tensor], int, float] | None:
    """Return what is written of one module: tensors by PEFT's names, rank and alpha."""
    adapter = layer.named()[name]
    if isinstance(adapter, VeRA):
        return dict(adapter.trained()), adapter.rank, adapter.alpha
    alpha = adapter.alpha
    if isinstance(adapter, AdaLoRA):
        reduced = as_lora(adapter)
        if reduced is None:
            return None
        down, up, alpha = reduced
    else:
        with torch.no_grad():
            down, up = adapter.factors()
        if layer.taken is not None and layer.taken.owner == name:
            A0, B0 = layer.taken.factors()
            down, up = torch.cat([down, A0]), torch.cat([up, -B0], 1)
            # Twice the rank at the same scale.
            rslora = isinstance(adapter, LoRA) and adapter.rslora
            alpha *= math.sqrt(2) if rslora else 2
    named = _peft_names(layer.base, down, up)
    if adapter.magnitude is not None:
        named["lora_magnitude_vector"] = adapter.magnitude
    return named, len(down), alpha


def _peft_names(base: Base, down: Tensor, up: Tensor) -> dict[str, Tensor]:
    if isinstance(base, nn.Embedding):
        return {"lora_embedding_A": down, "lora_embedding_B": up}
    if isinstance(base, nn.Conv1d | nn.Conv2d):
        down = down.view(len(down), base.in_channels, *base.kernel_size)
        up = up.reshape(*up.shape, *([1] * len(base.kernel_size)))
    return {"lora_A.weight": down, "lora_B.weight": up}


def _saved_tensors(model: nn.Module, name: str) -> dict[str, Tensor]:
    """Return the tensors of modules trained whole; a copy that two share is written for both."""
    return {
        f"{PREFIX}{path}.{part}": value.clone()
        for path, module in saved_modules(model).items()
        if name in module.copies
        for part, value in module.copies[name].state_dict().items()
        if part in dict(module.base.named_parameters())
    }


def _peft_config(
    model: nn.Module,
    layers: dict[str, AdaptedLayer],
    scales: dict[str, tuple[int, float]],
    spec: AdapterSpec,
    origin: ModelOrigin,
    name: str,
) -> dict[str, Any]:
    causal = type(model).__name__.endswith("ForCausalLM")
    written = {path: layers[path] for path in scales}
    saved = [path for path, module in saved_modules(model).items() if name in module.copies]
    common: dict[str, Any] = {
        "task_type": "CAUSAL_LM" if causal else None,
        "base_model_name_or_path": origin.name,
        "target_modules": _shortest_targets(model, written),
        "bias": "none",
        "fan_in_fan_out": any(isinstance(la.base, bases.Conv1D) for la in written.values()),
        "inference_mode": True,
        "modules_to_save": saved or None,
    }
    if spec.kind == "vera":
        return {
            "peft_type": "VERA",
            **common,
            "r": spec.rank,
            "vera_dropout": spec.dropout,
            "d_initial": spec.vera_initial,
            "projection_prng_key": 0,
            "save_projection": True,
        }
    rank, alpha = _commonest(list(scales.values())) if scales else (spec.rank, spec.alpha)
    return {
        "peft_type": "LORA",
        **common,
        "r": rank,
        "lora_alpha": _plain_number(alpha),
        "rank_pattern": {path: r for path, (r, _) in scales.items() if r != rank},
        "alpha_pattern": {path: _plain_number(a) for path, (_, a) in scales.items() if a != alpha},
        "lora_dropout": spec.dropout,
        "init_lora_weights": True,
        "use_dora": spec.kind == "dora",
        "use_rslora": spec.rslora,
    }


def _commonest(scales: list[tuple[int, float]]) -> tuple[int, float]:
    ranks, alphas = [rank for rank, _ in scales], [alpha for _, alpha in scales]
    return max(ranks, key=ranks.count), max(alphas, key=alphas.count)


def _plain_number(value: float) -> float | int:
    return int(value) if float(value).is_integer() else value


def _shortest_targets(model: nn.Module, layers: dict[str, AdaptedLayer]) -> list[str]:
    """Return last names (`q_proj`) if they mean just the adapted modules, else whole paths.

    Whole paths are always right in PEFT, but some servers read last names only.
    """
    last = sorted({name.rpartition(".")[2] for name in layers})
    inner = tuple(f"{name}." for name in [*adapted_layers(model), *saved_modules(model)])
    outside = (name for name, _ in named_modules(model) if not name.startswith(inner))
    means = {name for name in outside if any(name_matches(name, target) for target in last)}
    return last if means == layers.keys() else list(layers)


def _provenance(
    layers: dict[str, AdaptedLayer], spec: AdapterSpec, origin: ModelOrigin
) -> dict[str, Any]:
    held = [layer.base.spec for layer in layers.values() if isinstance(layer.base, QuantLinear)]
    quant = held[0] if held else QuantSpec(kind="none")
    taken = any(layer.taken is not None for layer in layers.values())
    return {
        "etude": etude.__version__,
        "base": {"name": origin.name, "fingerprint": origin.fingerprint},
        "quant": quant.model_dump(),
        "start": spec.init if taken else "default",
        "factors": spec.factors.model_dump(),
    }


def _halves(part: SavedPart) -> tuple[SavedPart, init.FactorInit]:
    """Take apart what was trained and what had been taken off the base."""
    A, B = part.tensors["lora_A"], part.tensors["lora_B"]
    rank = len(A) // 2
    own = {**part.tensors, "lora_A": A[:rank], "lora_B": B[:, :rank]}
    trained = SavedPart(own, rank, part.scaling * rank, part.scaling)
    return trained, init.FactorInit(A[:rank], B[:, :rank], (A[rank:], -B[:, rank:]))


def _projections(saved: SavedAdapter, found: dict[str, Base]) -> Projections | None:
    if saved.kind != "vera" or saved.projections is not None:
        return saved.projections
    widths = [bases.sizes(found[path]) for path in saved.parts]
    rank, seed = saved.options.rank, saved.options.seed
    return Projections.draw(rank, max(w for w, _ in widths), max(h for _, h in widths), seed)


@torch.no_grad()
def _read_part(
    part: SavedPart, base: Base, saved: SavedAdapter, projections: Projections | None
) -> LowRank:
    dropout = saved.options.dropout
    if saved.kind == "vera":
        assert projections is not None
        adapter: LowRank = VeRA(base, projections, dropout)
    else:
        # The scale is what counts; alpha follows from it, whatever rule it came by.
        rslora = saved.options.rslora
        alpha = part.scaling * (math.sqrt(part.rank) if rslora else part.rank)
        adapter = LoRA(base, part.rank, alpha, dropout, rslora=rslora, dora=saved.kind == "dora")
    for key, parameter in adapter.trained().items():
        parameter.copy_(part.tensors[key])
    return adapter


def _weight(path: str, base: Base, original: Original | None) -> Tensor:
    if not isinstance(base, QuantLinear):
        return bases.read_matrix(base)
    if original is None:
        raise AdapterError(
            f"the adapter began as a part of {path}, which is quantised: its weight as it was "
            "before is needed to take that part off again"
        )
    return original(path)


def write_adapter(
    folder: str | Path, name: str, tensors: dict[str, Tensor], texts: dict[str, str]
) -> None:
    """Write an adapter's files: the tensors as `name`, and small ones beside it.

    Raises:
        RunError: they cannot be written; a previous adapter in the folder is still valid.
    """
    folder = Path(folder)
    weights = save(tensors, metadata={"format": "pt"})

    def write(aside: Path) -> None:
        aside.write_bytes(weights)
        # Only now, when the large file is known to fit on the disk, do the small ones change.
        for other, text in texts.items():
            replace_file(folder / other, lambda small, text=text: small.write_text(text, "utf-8"))

    try:
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(folder / name, write)
    except OSError as error:
        raise RunError(
            f"cannot save the adapter in {folder}: {error.strerror or error}; what was there "
            "before is untouched. Free some space, or choose another folder"
        ) from None


def _refuse_other_base(saved: SavedAdapter, origin: ModelOrigin) -> None:
    trained_on = saved.provenance
    if trained_on is not None and trained_on.fingerprint != origin.fingerprint:
        raise AdapterError(
            f"{saved.folder} was trained on {trained_on.base} (fingerprint "
            f"{trained_on.fingerprint[:12]}), not on these weights of {origin.name} "
            f"({origin.fingerprint[:12]}); load that model, or force it if you know they are equal"
        )


def _refuse_other_shapes(saved: SavedAdapter, model: nn.Module) -> None:
    found = adaptable_modules(model)
    unknown = [name for name in saved.parts if name not in found]
    if unknown:
        raise AdapterError(
            f"{saved.folder} is for another model: this one has no Linear {listed(unknown)}"
        )
    for name, part in saved.parts.items():
        bases.refuse_unfit(name, found[name])
        features, out = bases.sizes(found[name])
        A, B = part.tensors.get("lora_A"), part.tensors.get("lora_B")
        if A is None or B is None:
            rows, columns = len(part.tensors["vera_lambda_b"]), features
        else:
            rows, columns = len(B), A.shape[1]
        if (rows, columns) != (out, features):
            raise AdapterError(
                f"{saved.folder} is for another model: its {name} is {rows} × {columns}, "
                f"this model's {out} × {features}"
            )
        if saved.options.transposed and isinstance(found[name], LinearOnly):
            raise AdapterError(
                f"{saved.folder}: fan_in_fan_out is set, but {name} stores its weight as (out, in)"
            )
    _refuse_other_modules(saved, model)
    options = saved.options
    linear = linear_modules(model)
    targets = {name for name in linear if peft_matches(name, options.targets)}
    targets -= {name for name in targets if peft_matches(name, options.excluded)}
    targets -= {name for name in targets if name in saved.modules}
    missing = [name for name in linear if name in targets and name not in saved.parts]
    # `all-linear` is no name: PEFT writes what it found instead, older versions did not. An
    # AdaLoRA may have taken every rank off a module.
    if missing and options.targets != "all-linear" and options.kind != "adalora":
        raise AdapterError(
            f"{saved.folder}: {CONFIG} targets {listed(missing)}, of which {WEIGHTS} has nothing"
        )


def _refuse_other_modules(saved: SavedAdapter, model: nn.Module) -> None:
    shapes = {
        name: tuple(p.shape)
        for name, p in cast("Any", model).named_parameters(remove_duplicate=False)
    }
    for path, tensors in saved.modules.items():
        for part, value in tensors.items():
            if shapes.get(f"{path}.{part}") != tuple(value.shape):
                raise AdapterError(
                    f"{saved.folder} is for another model: {path}.{part} is "
                    f"{tuple(value.shape)} there, {shapes.get(f'{path}.{part}')} here"
                )
    for path, weight in saved.embeddings.items():
        here = dict(adaptable_modules(model)).get(path)
        if not isinstance(here, nn.Embedding) or not torch.allclose(
            here.weight.float(), weight.float(), rtol=2**-8, atol=0
        ):
            raise AdapterError(
                f"{saved.folder} brings other weights for {path}, trained or resized; "
                "merge them into the base first"
            )
