"""Reading and writing of PEFT's `adapter_config.json`.

An option that changes the arithmetic in an unimplemented way is refused, not ignored, because the
adapter would silently compute something else.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

from etude.core.errors import AdapterError
from etude.tuning.adapters.registry import AdapterKind, claimant
from etude.tuning.adapters.saved_parts import CONFIG, PeftOptions
from etude.tuning.adapters.targets import name_matches

_COMMON_KEYS = {
    *("peft_type", "bias", "target_modules", "exclude_modules", "modules_to_save"),
    *("base_model_name_or_path", "revision", "task_type", "auto_mapping", "peft_version"),
    *("inference_mode", "target_modules_to_tie", "modules_to_tie"),
    *("layers_to_transform", "layers_pattern", "trainable_token_indices"),
    # Valid for GPT-2's Conv1D, whose weight is transposed; checked against the model.
    "fan_in_fan_out",
}
"""PEFT options of all kinds that are read here, or that have no effect after training."""


def read_options(config: dict[str, Any], folder: Path) -> PeftOptions:
    """Validate a configuration.

    Raises:
        AdapterError: it is unsupported or malformed.
    """
    kind = claimant(config, folder)
    _refuse_unsupported(config, folder, kind)
    rank, alpha, dropout = kind.numbers(config)
    whole = type(rank) is int and rank >= kind.least_rank
    if not (whole and is_number(alpha) and is_number(dropout) and 0 <= dropout < 1):
        raise AdapterError(
            f"{folder / CONFIG}: r {rank!r}, lora_alpha {alpha!r}, lora_dropout {dropout!r} are "
            "not a rank, a number and a probability"
        )
    ranks: Any = kind.rank_pattern(config)
    alphas: Any = config.get("alpha_pattern") or {}
    if not all(type(r) is int and r >= 1 for r in ranks.values()) or not all(
        is_number(a) for a in alphas.values()
    ):
        raise AdapterError(f"{folder / CONFIG}: rank_pattern or alpha_pattern must map to numbers")
    return PeftOptions(
        folder=folder,
        kind=kind.name,
        rank=rank,
        alpha=float(alpha),
        dropout=float(dropout),
        targets=config.get("target_modules") or [],
        excluded=config.get("exclude_modules") or [],
        ranks=ranks,
        alphas=alphas,
        saved=config.get("modules_to_save") or [],
        base=config.get("base_model_name_or_path"),
        transposed=bool(config.get("fan_in_fan_out")),
        bias=config.get("bias") or "none",
        layers=_layers(config, folder),
        layer_lists=_names(config.get("layers_pattern")),
        tokens=_tokens(config, folder),
        parameters=_names(config.get("target_parameters")),
        config=config,
    )


def _layers(config: dict[str, Any], folder: Path) -> list[int] | None:
    """Return PEFT's `layers_to_transform` as a list; None: all layers."""
    stated: Any = config.get("layers_to_transform")
    if stated is None or stated == []:
        return None
    layers = cast("list[Any]", stated if isinstance(stated, list) else [stated])
    if not all(type(number) is int and number >= 0 for number in layers):
        raise AdapterError(f"{folder / CONFIG}: layers_to_transform {stated!r} are no numbers")
    return layers


def _names(stated: Any) -> list[str]:
    return [stated] if isinstance(stated, str) and stated else list(stated or [])


def _tokens(config: dict[str, Any], folder: Path) -> dict[str, list[int]]:
    """Return PEFT's `trainable_token_indices` by the name of the module; `""`: the embedding."""
    stated: Any = config.get("trainable_token_indices")
    if not stated:
        return {}
    by_name = cast("dict[str, Any]", stated if isinstance(stated, dict) else {"": stated})
    for indices in by_name.values():
        if not isinstance(indices, list) or not all(
            type(index) is int and index >= 0 for index in cast("list[Any]", indices)
        ):
            raise AdapterError(f"{folder / CONFIG}: trainable_token_indices are not token ids")
    return by_name


def peft_initialisation(config: Mapping[str, Any]) -> Literal["pissa", "olora"] | None:
    """Return the initialisation by which PEFT changes the base when it loads the adapter, or None.

    PEFT writes True instead once it has converted the adapter to one relative to the base.
    """
    made: Any = config.get("init_lora_weights")
    named = made.lower() if isinstance(made, str) else ""
    return "pissa" if named == "pissa" else "olora" if named == "olora" else None


def peft_matches(path: str, targets: str | list[str]) -> bool:
    """Return whether `path` is a target by PEFT's rules: a regular expression, or names.

    Raises:
        AdapterError: it is not a valid regular expression.
    """
    if isinstance(targets, str):
        try:
            return bool(targets) and re.fullmatch(targets, path) is not None
        except re.error:
            raise AdapterError(f"{CONFIG} targets {targets!r}, no regular expression") from None
    return any(name_matches(path, target) for target in targets)


def is_number(value: Any) -> bool:
    """Return whether `value` is a finite number and not a boolean."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _refuse_unsupported(config: dict[str, Any], folder: Path, kind: AdapterKind) -> None:
    known = _COMMON_KEYS | kind.config_keys
    options = {key: value for key, value in config.items() if key not in known}
    bad = sorted(key for key, value in options.items() if not _is_off(value))
    biases = ("none", "all", "lora_only") if kind.trains_biases else ("none",)
    if (config.get("bias") or "none") not in biases:
        bad.append("bias")
    bad += kind.unsupported(config)
    if bad:
        listed = ", ".join(f"{key}: {json.dumps(config[key])}" for key in bad)
        raise AdapterError(f"{folder / CONFIG}: not supported yet: {listed}")


def _is_off(value: Any) -> bool:
    """Return whether an option is unset; 0 counts as set: `layers_to_transform: 0` is a layer."""
    return value is None or value is False or value in ("", [], {})
