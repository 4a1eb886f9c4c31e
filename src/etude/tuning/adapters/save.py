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

from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save
from torch import Tensor, nn

from etude.core.atomic_files import replace_file, replace_text, to_json
from etude.core.errors import AdapterError, RunError
from etude.core.version import __version__
from etude.tuning.adapters import bases, init, registry
from etude.tuning.adapters.adapter import Adapter
from etude.tuning.adapters.bases import Base
from etude.tuning.adapters.inject import Original, apply_init, inject
from etude.tuning.adapters.layer import AdaptedLayer
from etude.tuning.adapters.low_rank import Taken
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
from etude.tuning.adapters.peft_config import peft_matches
from etude.tuning.adapters.read import PROVENANCE, SavedAdapter, read_adapter
from etude.tuning.adapters.saved_parts import (
    CONFIG,
    PREFIX,
    WEIGHTS,
    SavedPart,
    WrittenPart,
    listed,
)
from etude.tuning.adapters.targets import (
    adaptable_modules,
    linear_modules,
    name_matches,
    named_modules,
)
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
    own = registry.kind(spec.kind)
    layers = {path: la for path, la in adapted_layers(model).items() if name in la.named()}
    parts: dict[str, WrittenPart] = {}
    for path, layer in layers.items():
        part = own.written(layer.named()[name], layer.base, _taken_by(layer, name))
        if part is not None:
            parts[path] = part
    tensors = {
        f"{PREFIX}{path}.{key}": value
        for path, part in parts.items()
        for key, value in part.tensors.items()
    }
    whole = _saved_tensors(model, name)
    if not tensors and not whole:
        raise AdapterError("the model has no adapter to save")
    if layers:
        tensors |= own.shared([layer.named()[name] for layer in layers.values()])
    tensors = {
        key: value.detach().to("cpu", torch.float32).contiguous()
        for key, value in {**tensors, **whole}.items()
    }
    for key, value in tensors.items():
        if not torch.isfinite(value).all():
            bad = key.removeprefix(PREFIX).removesuffix(".weight")
            raise AdapterError(f"{bad} holds NaN or infinity; it is not saved")
    texts = {
        CONFIG: to_json(_peft_config(model, layers, parts, spec, origin, name), indent=2),
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
    parts = {path: saved.parts[path] for path in found if path in saved.parts}
    halves: dict[str, init.FactorInit] = {}
    if saved.starts_off_base:
        for path, part in parts.items():
            parts[path], halves[path] = _halves(part)
    adapters = registry.kind(saved.kind).restore(parts, found, saved.options, saved.shared)
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


def _taken_by(layer: AdaptedLayer, name: str) -> Taken | None:
    """Return what the initialisation of adapter `name` took off the layer's base."""
    taken = layer.taken
    return taken if taken is not None and taken.owner == name else None


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
    parts: dict[str, WrittenPart],
    spec: AdapterSpec,
    origin: ModelOrigin,
    name: str,
) -> dict[str, Any]:
    tasks = {"ForCausalLM": "CAUSAL_LM", "ForSequenceClassification": "SEQ_CLS"}
    task = next((t for end, t in tasks.items() if type(model).__name__.endswith(end)), None)
    written = {path: layers[path] for path in parts}
    saved = [path for path, module in saved_modules(model).items() if name in module.copies]
    common: dict[str, Any] = {
        "task_type": task,
        "base_model_name_or_path": origin.name,
        "target_modules": _shortest_targets(model, written),
        "bias": "none",
        "fan_in_fan_out": any(isinstance(la.base, bases.Conv1D) for la in written.values()),
        "inference_mode": True,
        "modules_to_save": saved or None,
    }
    adapters: dict[str, Adapter] = {path: la.named()[name] for path, la in written.items()}
    return registry.kind(spec.kind).peft_config(common, spec, parts, adapters)


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
        "etude": __version__,
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


def _weight(path: str, base: Base, original: Original | None) -> Tensor:
    if not isinstance(base, QuantLinear):
        return bases.read_matrix(base)
    if original is None:
        raise AdapterError(
            f"the adapter began as a part of {path}, which is quantised: its weight as it was "
            "before is needed to take that part off again"
        )
    return original(path).to(bases.device(base))


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
            replace_text(folder / other, text)

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
    own = registry.kind(saved.options.kind)
    for name, part in saved.parts.items():
        bases.refuse_unfit(name, found[name])
        features, out = bases.sizes(found[name])
        rows, columns = own.shape(name, part, saved.options, found[name])
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
    if missing and options.targets != "all-linear" and not own.may_leave_out:
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
