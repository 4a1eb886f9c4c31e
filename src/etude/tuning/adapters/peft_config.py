"""Reading and writing of PEFT's `adapter_config.json`.

An option that changes the arithmetic in an unimplemented way is refused, not ignored, because the
adapter would silently compute something else.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

from etude.core.errors import AdapterError
from etude.tuning.adapters.registry import AdapterKind, claimant
from etude.tuning.adapters.saved_parts import CONFIG, PeftOptions
from etude.tuning.adapters.targets import name_matches

_COMMON_KEYS = {
    *("peft_type", "bias", "target_modules", "exclude_modules", "modules_to_save"),
    *("base_model_name_or_path", "revision", "task_type", "auto_mapping", "peft_version"),
    *("inference_mode", "target_modules_to_tie", "modules_to_tie"),
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
        config=config,
    )


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
    if config.get("bias", "none") != "none":
        bad.append("bias")
    bad += kind.unsupported(config)
    if bad:
        listed = ", ".join(f"{key}: {json.dumps(config[key])}" for key in bad)
        raise AdapterError(f"{folder / CONFIG}: not supported yet: {listed}")


def _is_off(value: Any) -> bool:
    """Return whether an option is unset; 0 counts as set: `layers_to_transform: 0` is a layer."""
    return value is None or value is False or value in ("", [], {})
