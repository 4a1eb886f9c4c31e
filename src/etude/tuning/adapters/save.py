"""Saving and loading adapters in PEFT's format, with a record of the base they were trained on.

An adapter is a difference, meaningless on other weights than those it was trained on. A folder is
therefore refused if a key is missing or unexpected, a shape does not fit, an option would change
the arithmetic in an unimplemented way, or the base is a different one (`compatibility`). PEFT's own
folders, which lack `etude.json`, are read by the same rules (`read`).

An adapter whose initialisation subtracted T = s·B₀A₀ from the base is saved relative to the
original base, ΔW = s·B A − T, a plain LoRA of twice the rank that any program can load: the first
half of the ranks is the trained part, the second the subtracted one. Loading recombines them. PEFT
saves such an adapter relative to the changed base, and computes the change again when loading; so
does `load_adapter`.
"""

from __future__ import annotations

from functools import partial
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
from etude.tuning.adapters.compatibility import (
    are_tied,
    refuse_other_base,
    refuse_other_shapes,
    trained_rows,
    with_experts,
)
from etude.tuning.adapters.experts import of_experts, peft_paths
from etude.tuning.adapters.inject import Original, apply_init, inject
from etude.tuning.adapters.layer import AdaptedLayer
from etude.tuning.adapters.low_rank import LowRank, Taken
from etude.tuning.adapters.modules_to_save import saved_modules, tied_to, untie
from etude.tuning.adapters.multi_adapter import (
    DEFAULT,
    AdaptedModule,
    adapted_layers,
    adapter_parameters,
    describe,
    refuse_name,
    set_adapter,
)
from etude.tuning.adapters.packed_factors import PACKED, pack_factors
from etude.tuning.adapters.peft_config import peft_initialisation
from etude.tuning.adapters.read import PROVENANCE, SavedAdapter, read_adapter
from etude.tuning.adapters.saved_parts import (
    CONFIG,
    PREFIX,
    WEIGHTS,
    SavedPart,
    WrittenPart,
    weight_of,
)
from etude.tuning.adapters.targets import (
    adaptable_modules,
    means_experts_to_peft,
    name_matches,
    named_modules,
)
from etude.tuning.adapters.trained_rows import DELTA, TrainedRows
from etude.tuning.config.sections.adapter import AdapterSpec
from etude.tuning.config.sections.quant import QuantSpec
from etude.tuning.models.load import ModelOrigin
from etude.tuning.quant.linear import QuantLinear

NO_TARGETS = "dummy-target-modules"
"""PEFT's `target_modules` of an adapter that has none, only fully trained modules."""


def save_adapter(
    model: nn.Module,
    folder: str | Path,
    spec: AdapterSpec,
    origin: ModelOrigin,
    *,
    name: str = DEFAULT,
) -> None:
    """Write an adapter of `model` into `folder`, replacing an earlier one atomically.

    With `spec.factors.bits` the factors are rounded and written packed.

    Raises:
        AdapterError: the model has no such adapter, or it contains NaN or infinity.
        RunError: the folder cannot be written; a previous adapter in it is still valid.
    """
    own = registry.kind(spec.kind)
    layers = {path: la for path, la in adapted_layers(model).items() if name in la.named()}
    parts: dict[str, WrittenPart] = {}
    for path, layer in layers.items():
        part = own.written(layer.named()[name], layer.base, _taken_by(layer, name))
        if part is not None:
            parts[path] = part
    wrappers = peft_paths([path for path in of_experts(layers) if path in parts])
    tensors = {
        f"{PREFIX}{wrappers.get(path, path)}.{key}": value
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
            raise AdapterError(f"{bad} contains NaN or infinity; the adapter was not saved")
    texts = {
        CONFIG: to_json(_peft_config(model, layers, parts, spec, origin, name), indent=2),
        PROVENANCE: to_json(_provenance(model, layers, spec, origin), indent=2),
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
    """Load the adapter in `folder` into `model`, in place; it becomes active, the rest frozen.

    Args:
        model: the base, with or without other adapters.
        folder: directory written by `save_adapter` or PEFT.
        name: name of the adapter.
        origin: origin of `model`, checked against the base the adapter was trained on.
        original: returns weights before quantisation, for an adapter initialised with a part of a
            base that is quantised.
        trainable: whether the adapter's weights require gradients.
        force: load it although the base's fingerprint differs; shapes must fit in any case.

    Raises:
        AdapterError: the folder is damaged, unsupported, or for another model.
    """
    refuse_name(model, name)
    saved = with_experts(read_adapter(folder), model)
    if origin is not None and not force:
        refuse_other_base(saved, origin)
    _refuse_rewritten_ties(saved, model)
    rows = trained_rows(saved, model)
    refuse_other_shapes(saved, model)
    found = adaptable_modules(model)
    parts = {path: saved.parts[path] for path in found if path in saved.parts}
    halves: dict[str, init.FactorInit] = {}
    if saved.starts_off_base:
        for path, part in parts.items():
            parts[path], halves[path] = _halves(part)
    modules = saved.modules
    adapters = registry.kind(saved.kind).restore(parts, found, saved.options, saved.shared)
    inject(
        model,
        adapters,
        list(modules),
        name,
        ties=partial(are_tied, modules, saved),
        biases=list(saved.biases),
        rows=rows,
    )
    with torch.no_grad():
        for path, part in parts.items():
            layer = cast("AdaptedLayer", model.get_submodule(path))
            begun = halves.get(path)
            if begun is None:
                begun = _begun_by_peft(saved, path, part, layer, original)
            if begun is not None:
                untie(model, path)
                apply_init(layer, name, begun, _weight(path, layer.base, original))
        for path, module in saved_modules(model).items():
            for part, value in modules.get(path, {}).items():
                module.copies[name].get_parameter(part).copy_(value)
        parameters = adapter_parameters(model, name)
        for path, bias in saved.biases.items():
            parameters[f"{path}.bias"].copy_(bias)
    set_adapter(model, name, trainable=trainable)
    return describe(model, name)


def _taken_by(layer: AdaptedLayer, name: str) -> Taken | None:
    """Return the part that the initialisation of adapter `name` subtracted from the base."""
    taken = layer.taken
    return taken if taken is not None and taken.owner == name else None


def _saved_tensors(model: nn.Module, name: str) -> dict[str, Tensor]:
    """Return trained biases and the tensors of modules trained whole; a shared copy for each."""
    found = {
        f"{PREFIX}{path}.{part}": value.clone()
        for path, module in saved_modules(model).items()
        if name in module.copies
        for part, value in module.copies[name].state_dict().items()
        if part in dict(module.base.named_parameters())
    }
    for path, rows in _own_rows(model, name).items():
        found[f"{PREFIX}{path}.token_adapter.{DELTA}"] = rows.trainable_tokens_delta
    for path, layer in adapted_layers(model).items():
        if name in layer.biases:
            # PEFT's name depends on whether the layer has factors as well.
            inner = ".base_layer" if name in layer.named() else ""
            found[f"{PREFIX}{path}{inner}.bias"] = layer.biases[name]
    return found


def _own_rows(model: nn.Module, name: str) -> dict[str, TrainedRows]:
    """Return the trained rows by module; of modules that share them, the first."""
    found: dict[str, TrainedRows] = {}
    for path, module in saved_modules(model).items():
        rows = module.copy_of(name)
        if isinstance(rows, TrainedRows) and all(rows is not other for other in found.values()):
            found[path] = rows
    return found


def _peft_config(
    model: nn.Module,
    layers: dict[str, AdaptedLayer],
    parts: dict[str, WrittenPart],
    spec: AdapterSpec,
    origin: ModelOrigin,
    name: str,
) -> dict[str, Any]:
    tasks = {
        "ForCausalLM": "CAUSAL_LM",
        "ForSequenceClassification": "SEQ_CLS",
        "ForTokenClassification": "TOKEN_CLS",
        "Model": "FEATURE_EXTRACTION",
    }
    task = next((t for end, t in tasks.items() if type(model).__name__.endswith(end)), None)
    written = {path: layers[path] for path in parts}
    is_lora = registry.kind(spec.kind).peft_type == "LORA"
    stacked = of_experts(written)
    named = {
        path: la
        for path, la in written.items()
        if path not in stacked and not (is_lora and means_experts_to_peft(model, path))
    }
    others = [path for path in written if path not in named and path not in stacked]
    parameters = [*map(weight_of, others), *stacked]
    saved = [
        path
        for path, module in saved_modules(model).items()
        if name in module.copies and module.is_whole(name)
    ]
    base, revision = origin.published
    common: dict[str, Any] = {
        "task_type": task,
        "base_model_name_or_path": base,
        "revision": revision,
        "target_modules": _shortest_targets(model, named) if written else NO_TARGETS,
        "bias": spec.bias,
        "fan_in_fan_out": any(bases.is_transposed(la.base) for la in written.values()),
        "inference_mode": True,
        "modules_to_save": saved or None,
    }
    if parameters:
        common["target_parameters"] = parameters
    if rows := _own_rows(model, name):
        common["trainable_token_indices"] = {
            path: cast("Any", one.ids).tolist() for path, one in rows.items()
        }
    adapters: dict[str, Adapter] = {path: la.named()[name] for path, la in written.items()}
    return registry.kind(spec.kind).peft_config(common, spec, parts, adapters)


def _shortest_targets(model: nn.Module, layers: dict[str, AdaptedLayer]) -> list[str]:
    """Return short names (`q_proj`) if they match just the adapted modules, else full paths.

    PEFT accepts full paths, but some servers read short names only.
    """
    last = sorted({name.rpartition(".")[2] for name in layers})
    inner = tuple(f"{name}." for name in [*adapted_layers(model), *saved_modules(model)])
    outside = (name for name, _ in named_modules(model) if not name.startswith(inner))
    means = {name for name in outside if any(name_matches(name, target) for target in last)}
    return last if means == layers.keys() else list(layers)


def _provenance(
    model: nn.Module, layers: dict[str, AdaptedLayer], spec: AdapterSpec, origin: ModelOrigin
) -> dict[str, Any]:
    # Where none of the adapted layers is quantised (experts, a head), others may be, and the
    # adapter was trained on them.
    bases_first = [*(layer.base for layer in layers.values()), *model.modules()]
    held = (module.spec for module in bases_first if isinstance(module, QuantLinear))
    quant = next(held, QuantSpec(kind="none"))
    taken = any(layer.taken is not None for layer in layers.values())
    return {
        "etude": __version__,
        "base": {
            "name": origin.name,
            "fingerprint": origin.fingerprint,
            **({"kept_layers": list(origin.kept_layers)} if origin.kept_layers else {}),
        },
        "quant": quant.model_dump(),
        "start": spec.init if taken else "default",
        "factors": spec.factors.model_dump(),
    }


def _halves(part: SavedPart) -> tuple[SavedPart, init.FactorInit]:
    """Split a saved part into the trained factors and the subtracted ones."""
    A, B = part.tensors["lora_A"], part.tensors["lora_B"]
    rank = len(A) // 2
    own = {**part.tensors, "lora_A": A[:rank], "lora_B": B[:, :rank]}
    trained = SavedPart(own, rank, part.scaling * rank, part.scaling)
    return trained, init.FactorInit(A[:rank], B[:, :rank], (A[rank:], -B[:, rank:]))


def _refuse_rewritten_ties(saved: SavedAdapter, model: nn.Module) -> None:
    """Refuse an adapter for which PEFT rewrote two modules where one was adapted.

    Raises:
        AdapterError: its initialisation changed a weight that another module shares.
    """
    made, found = peft_initialisation(saved.options.config), adaptable_modules(model)
    for path in saved.parts if made else ():
        if path not in found or isinstance(found[path], nn.Embedding):
            continue
        if others := tied_to(model, path):
            raise AdapterError(
                f"{saved.folder}: init_lora_weights: {made} changed {path}, and with it "
                f"{others[0]}, to which the base ties it; let PEFT save it relative to the base "
                "(path_initial_model_for_weight_conversion)"
            )


def _begun_by_peft(
    saved: SavedAdapter,
    path: str,
    part: SavedPart,
    layer: AdaptedLayer,
    original: Original | None,
) -> init.FactorInit | None:
    """Return the factors of an adapter of PEFT's, with what its initialisation took of the base.

    PEFT computes that part again whenever it loads the adapter, exactly, and so does this.
    """
    made = peft_initialisation(saved.options.config)
    if made is None or isinstance(layer.base, nn.Embedding):
        return None
    pair = part.tensors["lora_A"], part.tensors["lora_B"]
    W = _weight(path, layer.base, original)
    spec = AdapterSpec(init=made, svd_iterations=None)
    generator = torch.Generator()
    at = init.Layer(layer.base, cast("LowRank", layer.adapter), W, spec, generator)
    make = init.initialisation(made).make
    assert make is not None
    taken = make(at).taken
    if made == "olora" and taken is not None:
        # PEFT begins with A = R and B = Q, so it takes s·Q R where W = Q R.
        taken = taken[0] * part.scaling, taken[1]
    return init.FactorInit(*pair, taken)


def _weight(path: str, base: Base, original: Original | None) -> Tensor:
    if not isinstance(base, QuantLinear):
        return bases.read_matrix(base)
    if original is None:
        raise AdapterError(
            f"the adapter was initialised with a part of {path}, which is quantised; its original "
            "weight is needed to subtract that part again"
        )
    return original(path).to(bases.device(base))


def write_adapter(
    folder: str | Path, name: str, tensors: dict[str, Tensor], texts: dict[str, str]
) -> None:
    """Write an adapter's files: the tensors as `name`, and the JSON files beside it.

    Raises:
        RunError: the files cannot be written; a previous adapter in the folder is still valid.
    """
    folder = Path(folder)
    weights = save(tensors, metadata={"format": "pt"})

    def write(aside: Path) -> None:
        aside.write_bytes(weights)
        # Replace the small files only once the large one is known to fit on the disk.
        for other, text in texts.items():
            replace_text(folder / other, text)

    try:
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(folder / name, write)
    except OSError as error:
        raise RunError(
            f"cannot save the adapter in {folder}: {error.strerror or error}; the previous content "
            "is intact. Free some space, or choose another folder"
        ) from None
