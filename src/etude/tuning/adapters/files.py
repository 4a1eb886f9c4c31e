"""Adapters on disk, in PEFT's format, with a note of what they were trained on.

    adapter/
        adapter_config.json        rank, alpha, dropout, target modules: what PEFT needs
        adapter_model.safetensors  base_model.model.<module>.lora_{A,B}.weight, float32
        etude.json                 base model, its fingerprint, how it was quantised

An adapter is a difference: on other weights than those it was trained on, it computes something,
but nothing anybody meant. So a folder is refused when a key is missing or left over, a shape does
not fit, an option would change the arithmetic in a way that is not implemented, or the base is
another one. PEFT's own folders, which lack `etude.json`, are read by the same rules.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

import etude
from etude.errors import AdapterError, RunError
from etude.tuning.adapters.lora import (
    AdaptedModule,
    LoRALinear,
    adapted_layers,
    describe,
    refuse_second_adapter,
    wrap_modules,
)
from etude.tuning.adapters.targets import linear_modules, name_matches, named_modules
from etude.tuning.durable import replace_file, to_json
from etude.tuning.models.load import ModelOrigin
from etude.tuning.quant.linear import QuantLinear
from etude.tuning.specs import AdapterSpec, QuantSpec

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PROVENANCE = "etude.json"

_PREFIX = "base_model.model."
_FACTOR_KEY = re.compile(r"(?P<module>.+)\.(?P<factor>lora_[AB])\.weight")

_NEUTRAL_INIT = (True, False, None, "gaussian", "eva", "orthogonal")
"""Initialisations that leave the base alone; others (PiSSA, OLoRA, ...) train on a changed base."""

_READ_OR_HARMLESS = {
    *("peft_type", "r", "lora_alpha", "lora_dropout", "bias", "init_lora_weights"),
    *("target_modules", "exclude_modules", "layers_pattern", "ensure_weight_tying"),
    *("base_model_name_or_path", "revision", "task_type", "auto_mapping", "peft_version"),
    *("inference_mode", "megatron_core", "runtime_config", "qalora_group_size"),
    *("loftq_config", "eva_config", "corda_config", "lora_ga_config"),
}
"""PEFT's options that are read here, or that change nothing once training is over."""


@dataclass(frozen=True)
class Provenance:
    """What an adapter was trained on."""

    base: str
    """The model's name, as the recipe said it."""
    fingerprint: str
    """Of the base's weights; see `ModelOrigin`."""
    quant: QuantSpec
    """How the base was held."""


@dataclass(frozen=True)
class SavedAdapter:
    """An adapter read from disk, checked within itself, not yet against a model."""

    folder: Path
    rank: int
    alpha: float
    dropout: float
    targets: str | list[str]
    """PEFT's `target_modules`: names, or a regular expression."""
    excluded: str | list[str]
    """PEFT's `exclude_modules`."""
    factors: dict[str, dict[str, Tensor]]
    """By module: `lora_A` (r, in) and `lora_B` (out, r), float32."""
    base: str | None
    """The base model's name, as the folder says it."""
    provenance: Provenance | None
    """None where the folder was not written by Etude."""


def save_adapter(
    model: nn.Module, folder: str | Path, spec: AdapterSpec, origin: ModelOrigin
) -> None:
    """Write the adapter of `model` into `folder`; what is there is replaced, or kept whole.

    Raises:
        AdapterError: the model has no adapter, or one with NaN or infinity in it.
        RunError: it cannot be written; a previous adapter in the folder is still valid.
    """
    layers = adapted_layers(model)
    if not layers:
        raise AdapterError("the model has no adapter to save")
    tensors: dict[str, Tensor] = {}
    for name, layer in layers.items():
        for factor in ("lora_A", "lora_B"):
            value = getattr(layer, factor).detach().to("cpu", torch.float32).contiguous()
            if not torch.isfinite(value).all():
                raise AdapterError(f"{name}.{factor} holds NaN or infinity; it is not saved")
            tensors[f"{_PREFIX}{name}.{factor}.weight"] = value
    texts = {
        CONFIG: to_json(_peft_config(model, layers, spec, origin), indent=2),
        PROVENANCE: to_json(_provenance(layers, origin), indent=2),
    }
    _write(Path(folder), save(tensors, metadata={"format": "pt"}), texts)


def read_adapter(folder: str | Path) -> SavedAdapter:
    """Read an adapter's folder, written by Etude or by PEFT.

    Raises:
        AdapterError: a file is missing or damaged, or an option is not supported.
    """
    folder = Path(folder)
    config = _read_json(folder / CONFIG)
    _refuse_unsupported(config, folder)
    rank, alpha = config.get("r"), config.get("lora_alpha")
    dropout: Any = config.get("lora_dropout", 0.0)
    whole = type(rank) is int and rank >= 1
    if not (whole and _is_number(alpha) and _is_number(dropout) and 0 <= dropout < 1):
        raise AdapterError(
            f"{folder / CONFIG}: r {rank!r}, lora_alpha {alpha!r}, lora_dropout {dropout!r} are "
            "not a rank, a number and a probability"
        )
    factors = _factors(_read_tensors(folder), folder)
    for module, pair in factors.items():
        if pair["lora_A"].shape[0] != rank or pair["lora_B"].shape[1] != rank:
            raise AdapterError(
                f"{folder}: {module} has rank {pair['lora_A'].shape[0]}, {CONFIG} says {rank}"
            )
    return SavedAdapter(
        folder,
        cast("int", rank),
        float(cast("float", alpha)),
        float(dropout),
        config.get("target_modules") or [],
        config.get("exclude_modules") or [],
        factors,
        config.get("base_model_name_or_path"),
        _read_provenance(folder),
    )


def load_adapter(
    model: nn.Module,
    folder: str | Path,
    *,
    origin: ModelOrigin | None = None,
    trainable: bool = False,
    force: bool = False,
) -> list[AdaptedModule]:
    """Put the adapter of `folder` on `model`, in place, and freeze the rest.

    Args:
        model: the base, without an adapter.
        folder: as `save_adapter` or PEFT wrote it.
        origin: where `model` came from, compared with what the adapter was trained on.
        trainable: let the factors be trained further.
        force: load it although the base has another fingerprint; shapes must fit all the same.

    Raises:
        AdapterError: the folder is damaged, not supported, or of another model.
    """
    refuse_second_adapter(model)
    saved = read_adapter(folder)
    if origin is not None and not force:
        _refuse_other_base(saved, origin)
    _refuse_other_shapes(saved, model)
    names = [name for name in linear_modules(model) if name in saved.factors]
    wrapped = wrap_modules(model, names, saved.rank, saved.alpha, saved.dropout)
    with torch.no_grad():
        for name, layer in wrapped.items():
            layer.lora_A.copy_(saved.factors[name]["lora_A"])
            layer.lora_B.copy_(saved.factors[name]["lora_B"])
            layer.lora_A.requires_grad_(trainable)
            layer.lora_B.requires_grad_(trainable)
    return describe(wrapped)


def _peft_config(
    model: nn.Module, layers: dict[str, LoRALinear], spec: AdapterSpec, origin: ModelOrigin
) -> dict[str, Any]:
    causal = type(model).__name__.endswith("ForCausalLM")
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM" if causal else None,
        "base_model_name_or_path": origin.name,
        "r": spec.rank,
        "lora_alpha": int(spec.alpha) if spec.alpha.is_integer() else spec.alpha,
        "lora_dropout": spec.dropout,
        "target_modules": _shortest_targets(model, layers),
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "inference_mode": True,
        "modules_to_save": None,
        "use_dora": False,
        "use_rslora": False,
    }


def _shortest_targets(model: nn.Module, layers: dict[str, LoRALinear]) -> list[str]:
    """Return last names (`q_proj`) if they mean just the adapted modules, else whole paths.

    Whole paths are always right in PEFT, but some servers read last names only.
    """
    last = sorted({name.rpartition(".")[2] for name in layers})
    inner = tuple(f"{name}." for name in layers)
    outside = (name for name, _ in named_modules(model) if not name.startswith(inner))
    means = {name for name in outside if any(name_matches(name, target) for target in last)}
    return last if means == layers.keys() else list(layers)


def _provenance(layers: dict[str, LoRALinear], origin: ModelOrigin) -> dict[str, Any]:
    quantized = [layer.base for layer in layers.values() if isinstance(layer.base, QuantLinear)]
    quant = QuantSpec(kind="none")
    if quantized:
        quant = QuantSpec(
            kind="nf4",
            block=cast("Any", quantized[0].block),
            double=quantized[0].double_quantized,
        )
    return {
        "etude": etude.__version__,
        "base": {"name": origin.name, "fingerprint": origin.fingerprint},
        "quant": quant.model_dump(),
    }


def _write(folder: Path, weights: bytes, texts: dict[str, str]) -> None:
    def write(aside: Path) -> None:
        aside.write_bytes(weights)
        # Only now, when the large file is known to fit on the disk, do the small ones change.
        for name, text in texts.items():
            replace_file(folder / name, lambda small, text=text: small.write_text(text, "utf-8"))

    try:
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(folder / WEIGHTS, write)
    except OSError as error:
        raise RunError(
            f"cannot save the adapter in {folder}: {error.strerror or error}; what was there "
            "before is untouched. Free some space, or choose another folder"
        ) from None


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content: Any = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        raise AdapterError(f"{file.parent} holds no adapter: {file.name} is missing") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not JSON"
        raise AdapterError(f"cannot read {file}: {reason}") from None
    if not isinstance(content, dict):
        raise AdapterError(f"{file} is damaged: it is JSON, but no object")
    return cast("dict[str, Any]", content)


def _refuse_unsupported(config: dict[str, Any], folder: Path) -> None:
    """Refuse every option that changes what the adapter computes and is not implemented."""
    kind = config.get("peft_type")
    if kind != "LORA":
        raise AdapterError(f"{folder} is a {kind} adapter; only LORA is supported")
    options = {key: value for key, value in config.items() if key not in _READ_OR_HARMLESS}
    bad = sorted(key for key, value in options.items() if not _is_off(value))
    if config.get("bias", "none") != "none":
        bad.append("bias")
    if config.get("init_lora_weights", True) not in _NEUTRAL_INIT:
        bad.append("init_lora_weights")
    if bad:
        listed = ", ".join(f"{key}: {json.dumps(config[key])}" for key in bad)
        raise AdapterError(f"{folder / CONFIG}: not supported yet: {listed}")


def _is_off(value: Any) -> bool:
    """Return whether an option is not used; 0 is used: `layers_to_transform: 0` is a layer."""
    return value is None or value is False or value in ("", [], {})


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    file = folder / WEIGHTS
    if not file.exists():
        pickled = (folder / "adapter_model.bin").exists()
        why = "only a pickle, adapter_model.bin; save it again as safetensors" if pickled else ""
        raise AdapterError(f"{folder} holds no {WEIGHTS}{why and ', '}{why}")
    try:
        with cast("Any", safe_open)(file, framework="pt") as opened:
            return {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise AdapterError(f"{file} is damaged or cut short: {reason}") from None


def _factors(tensors: dict[str, Tensor], folder: Path) -> dict[str, dict[str, Tensor]]:
    """Pair the tensors by module, each float32 and finite.

    Raises:
        AdapterError: a key is of another kind, has no partner, or holds no finite matrix.
    """
    factors: dict[str, dict[str, Tensor]] = {}
    unexpected: list[str] = []
    for key, tensor in tensors.items():
        match = _FACTOR_KEY.fullmatch(key.removeprefix(_PREFIX))
        if match is None or not key.startswith(_PREFIX):
            unexpected.append(key)
            continue
        if tensor.dim() != 2 or not tensor.is_floating_point():
            raise AdapterError(f"{folder}: {key} is no matrix of floating-point numbers")
        if not torch.isfinite(tensor).all():
            raise AdapterError(f"{folder}: {key} holds NaN or infinity")
        factors.setdefault(match["module"], {})[match["factor"]] = tensor.float()
    if unexpected:
        raise AdapterError(f"{folder}: unexpected in {WEIGHTS}: {_listed(unexpected)}")
    if not factors:
        raise AdapterError(f"{folder}: {WEIGHTS} is empty")
    missing = [
        f"{_PREFIX}{module}.{factor}.weight"
        for module, pair in factors.items()
        for factor in ("lora_A", "lora_B")
        if factor not in pair
    ]
    if missing:
        raise AdapterError(f"{folder}: missing from {WEIGHTS}: {_listed(missing)}")
    return factors


def _read_provenance(folder: Path) -> Provenance | None:
    file = folder / PROVENANCE
    if not file.exists():
        return None
    content = _read_json(file)
    try:
        base = content["base"]
        quant = QuantSpec.model_validate(content["quant"])
        return Provenance(str(base["name"]), str(base["fingerprint"]), quant)
    except (KeyError, TypeError, ValueError):
        raise AdapterError(
            f"{file} is damaged; restore it, or delete it to load the adapter unchecked"
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
    linear = linear_modules(model)
    unknown = [name for name in saved.factors if name not in linear]
    if unknown:
        raise AdapterError(
            f"{saved.folder} is for another model: this one has no Linear {_listed(unknown)}"
        )
    for name, pair in saved.factors.items():
        wanted = linear[name].out_features, linear[name].in_features
        found = pair["lora_B"].shape[0], pair["lora_A"].shape[1]
        if found != wanted:
            raise AdapterError(
                f"{saved.folder} is for another model: its {name} is {found[0]} × {found[1]}, "
                f"this model's {wanted[0]} × {wanted[1]}"
            )
    targets = {name for name in linear if _peft_matches(name, saved.targets)}
    targets -= {name for name in targets if _peft_matches(name, saved.excluded)}
    missing = [name for name in linear if name in targets and name not in saved.factors]
    # `all-linear` is no name: PEFT writes what it found instead, older versions did not.
    if missing and saved.targets != "all-linear":
        raise AdapterError(
            f"{saved.folder}: {CONFIG} targets {_listed(missing)}, of which {WEIGHTS} has nothing"
        )


def _peft_matches(path: str, targets: str | list[str]) -> bool:
    """Return whether PEFT takes `path` for a target: a regular expression, or names."""
    if isinstance(targets, str):
        try:
            return bool(targets) and re.fullmatch(targets, path) is not None
        except re.error:
            raise AdapterError(f"{CONFIG} targets {targets!r}, no regular expression") from None
    return any(name_matches(path, target) for target in targets)


def _listed(names: Iterable[str], count: int = 4) -> str:
    names = list(names)
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more
