"""PEFT's `adapter_config.json`: what of it is understood, and what is written.

An option that would change the arithmetic in a way that is not implemented is refused, not passed
over: the adapter would compute something, but nothing anybody meant.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from etude.core.errors import AdapterError
from etude.tuning.adapters.targets import name_matches

CONFIG = "adapter_config.json"

_NEUTRAL_INIT = (True, False, None, "gaussian", "eva", "orthogonal")
"""Initialisations that leave the base alone; others (PiSSA, OLoRA, ...) train on a changed base."""

_READ_OR_HARMLESS = {
    *("peft_type", "r", "lora_alpha", "lora_dropout", "bias", "init_lora_weights"),
    *("target_modules", "exclude_modules", "layers_pattern", "ensure_weight_tying"),
    *("base_model_name_or_path", "revision", "task_type", "auto_mapping", "peft_version"),
    *("inference_mode", "megatron_core", "runtime_config", "qalora_group_size"),
    *("loftq_config", "eva_config", "corda_config", "lora_ga_config"),
    *("use_rslora", "use_dora", "rank_pattern", "alpha_pattern", "modules_to_save"),
    *("vera_dropout", "d_initial", "projection_prng_key", "save_projection"),
    *("init_weights", "target_r", "init_r", "tinit", "tfinal", "deltaT", "beta1", "beta2"),
    *("orth_reg_weight", "total_step", "target_modules_to_tie", "modules_to_tie"),
}
"""PEFT's options that are read here, or that change nothing once training is over."""

_KINDS = {"LORA": "lora", "VERA": "vera", "ADALORA": "adalora"}


@dataclass(frozen=True)
class PeftOptions:
    """What a configuration says, checked."""

    kind: str
    """`lora`, `dora`, `vera` or `adalora`."""
    rank: int
    alpha: float
    rslora: bool
    dropout: float
    targets: str | list[str]
    """PEFT's `target_modules`: names, or a regular expression."""
    excluded: str | list[str]
    ranks: dict[str, int]
    """PEFT's `rank_pattern`: regular expression to rank."""
    alphas: dict[str, float]
    saved: list[str]
    """PEFT's `modules_to_save`."""
    base: str | None
    seed: int
    """VeRA's `projection_prng_key`."""
    transposed: bool
    """PEFT's `fan_in_fan_out`: the adapted layers store their weights as (in, out)."""

    def rank_of(self, path: str) -> int:
        """Return the rank that the configuration gives the module at `path`."""
        return _by_pattern(self.ranks, path, self.rank)

    def alpha_of(self, path: str) -> float:
        """Return its alpha."""
        return float(_by_pattern(self.alphas, path, self.alpha))

    def scaling(self, path: str, rank: int) -> float:
        """Return s for the module at `path`, of this rank."""
        if self.kind == "vera":
            return 1.0
        if self.kind == "adalora":
            return self.alpha / (rank + 1e-5)  # PEFT's way of never dividing by zero
        return self.alpha_of(path) / (math.sqrt(rank) if self.rslora else rank)


def read_options(config: dict[str, Any], folder: Path) -> PeftOptions:
    """Check a configuration.

    Raises:
        AdapterError: it is not supported, or not a configuration.
    """
    kind = _kind(config, folder)
    _refuse_unsupported(config, folder, kind)
    rank = config.get("target_r" if kind == "adalora" else "r")
    alpha = config.get("lora_alpha", 1.0 if kind == "vera" else None)
    dropout: Any = config.get("vera_dropout" if kind == "vera" else "lora_dropout", 0.0)
    whole = type(rank) is int and rank >= 1
    if not (whole and is_number(alpha) and is_number(dropout) and 0 <= dropout < 1):
        raise AdapterError(
            f"{folder / CONFIG}: r {rank!r}, lora_alpha {alpha!r}, lora_dropout {dropout!r} are "
            "not a rank, a number and a probability"
        )
    if config.get("use_dora"):
        kind = "dora"
    # AdaLoRA's own rank_pattern is a list of what is left of each module, not a rank.
    ranks: Any = {} if kind == "adalora" else config.get("rank_pattern") or {}
    alphas: Any = config.get("alpha_pattern") or {}
    if not all(type(r) is int and r >= 1 for r in ranks.values()) or not all(
        is_number(a) for a in alphas.values()
    ):
        raise AdapterError(f"{folder / CONFIG}: rank_pattern or alpha_pattern holds no numbers")
    return PeftOptions(
        kind=kind,
        rank=cast("int", rank),
        alpha=float(cast("float", alpha)),
        rslora=bool(config.get("use_rslora")),
        dropout=float(dropout),
        targets=config.get("target_modules") or [],
        excluded=config.get("exclude_modules") or [],
        ranks=ranks,
        alphas=alphas,
        saved=config.get("modules_to_save") or [],
        base=config.get("base_model_name_or_path"),
        seed=int(config.get("projection_prng_key") or 0),
        transposed=bool(config.get("fan_in_fan_out")),
    )


def peft_matches(path: str, targets: str | list[str]) -> bool:
    """Return whether PEFT takes `path` for a target: a regular expression, or names.

    Raises:
        AdapterError: it is no regular expression.
    """
    if isinstance(targets, str):
        try:
            return bool(targets) and re.fullmatch(targets, path) is not None
        except re.error:
            raise AdapterError(f"{CONFIG} targets {targets!r}, no regular expression") from None
    return any(name_matches(path, target) for target in targets)


def is_number(value: Any) -> bool:
    """Return whether `value` is a finite number, and no truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _kind(config: dict[str, Any], folder: Path) -> str:
    kind = config.get("peft_type")
    if kind not in _KINDS:
        known = ", ".join(_KINDS)
        raise AdapterError(f"{folder} is a {kind} adapter; only {known} are supported")
    return _KINDS[kind]


def _refuse_unsupported(config: dict[str, Any], folder: Path, kind: str) -> None:
    options = {key: value for key, value in config.items() if key not in _READ_OR_HARMLESS}
    bad = sorted(key for key, value in options.items() if not _is_off(value))
    # Right for GPT-2's Conv1D, whose weight is transposed; whether it is one shows on the model.
    bad = [key for key in bad if key != "fan_in_fan_out"]
    if config.get("bias", "none") != "none":
        bad.append("bias")
    if kind == "lora" and config.get("init_lora_weights", True) not in _NEUTRAL_INIT:
        bad.append("init_lora_weights")
    if bad:
        listed = ", ".join(f"{key}: {json.dumps(config[key])}" for key in bad)
        raise AdapterError(f"{folder / CONFIG}: not supported yet: {listed}")


def _is_off(value: Any) -> bool:
    """Return whether an option is not used; 0 is used: `layers_to_transform: 0` is a layer."""
    return value is None or value is False or value in ("", [], {})


def _by_pattern(patterns: dict[str, Any], path: str, default: Any) -> Any:
    """Return the value of the first pattern that ends `path`, as PEFT finds it."""
    for pattern, value in patterns.items():
        if re.match(rf"(.*\.)?({pattern})$", path):
            return value
    return default
