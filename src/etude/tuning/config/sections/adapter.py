"""`adapter`: which weights are trained, and how they are parametrised."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from etude.tuning.config.sections.base import Fraction, Section

_TAKEN_BY: dict[str, tuple[str, ...]] = {
    "init": ("lora",),
    "factors.bits": ("lora", "dora"),
    "rank_pattern": ("lora", "dora", "adalora", "full"),
    "alpha_pattern": ("lora", "dora", "adalora", "full"),
    "dropout": ("lora", "dora", "vera", "adalora", "full"),
}
"""The kinds that take a key which not all of them do; `full` passes over what it does not use."""

TRAINS_UP_FACTOR = ("lora", "dora", "adalora")
"""The kinds that train a factor U, whose rate is `train.loraplus_lr_ratio` times the others'."""


class FactorSpec(Section):
    """Quantised factors: ΔW ≈ Û V̂ᵀ with x̂ = round(s·x)/s, clipped to the range of the bits."""

    bits: Literal[2, 3, 4, 5, 6, 7, 8] | None = None
    """Bits of a number of U and V. None: they stay float32."""

    when: Literal["after", "training"] = "training"
    """`after`: rounded once, when they are saved (PTQ). `training`: rounded in every forward
    pass, with a straight-through gradient (QAT)."""

    scale: Literal["tensor", "row", "block"] = "row"
    """What shares one scale s: a whole factor, one of its r rank vectors, or `block` numbers."""

    block: Literal[32, 64, 128, 256] = 64
    """Numbers that share a scale (`scale: block` only)."""


class AdaLoraSpec(Section):
    """Rank allocation of AdaLoRA (Zhang et al. 2023): start above the rank, prune down to it."""

    initial_rank: Annotated[int, Field(ge=1)] | None = None
    """Rank of every module at the start. None: one and a half times `adapter.rank`."""

    warmup: Fraction = 0.1
    """Share of the steps before anything is pruned."""

    settle: Fraction = 0.3
    """Share of the steps, at the end, in which the ranks stay as they are."""

    every: Annotated[int, Field(ge=1)] = 1
    """Optimiser steps between two prunings."""

    beta1: Fraction = 0.85
    """Smoothing of the sensitivities."""

    beta2: Fraction = 0.85
    """Smoothing of their uncertainty."""

    orthogonality: Annotated[float, Field(ge=0)] = 0.5
    """Weight of the penalty ‖PᵀP − I‖² + ‖QQᵀ − I‖² in the loss."""


class Ia3Spec(Section):
    """IA³ (Liu et al. 2022): trained vectors l scale what flows through the target modules.

    A module's outputs are scaled, y = l ⊙ (W x + b), but for the last Linear of a feed-forward
    block, whose inputs are: y = W (l ⊙ x) + b. All of l begins at one. The paper scales keys,
    values and feed-forward blocks: `target_modules: [k_proj, v_proj, down_proj]`. Rank and alpha
    have no meaning here, and rates ten times LoRA's are common.
    """

    feedforward: list[str] | None = None
    """Target modules whose inputs are scaled, by name or pattern. None: down_proj, mlp.c_proj,
    fc2, w2 and dense_4h_to_h, where they are targets."""


class AdapterSpec(Section):
    """Which weights are trained, and how they are parametrised."""

    kind: Literal["lora", "dora", "vera", "adalora", "ia3", "full"] = "lora"
    """`lora`: ΔW = U Vᵀ on the target modules. `dora`: direction by LoRA, magnitude trained apart.
    `vera`: U and V random, frozen and shared, two vectors trained. `adalora`: ΔW = P Λ Q, the rank
    moved to where it matters. `ia3`: outputs or inputs scaled by a vector. `full`: full
    fine-tuning, every weight trained."""

    rank: Annotated[int, Field(ge=1)] = 16
    """r, the number of columns of U and V."""

    alpha: Annotated[float, Field(gt=0)] = 32.0
    """The update is scaled by alpha / rank."""

    rslora: bool = False
    """Scale by alpha / √rank instead, so that large ranks learn as fast (Kalajdzievski 2023)."""

    dropout: Fraction = 0.0
    """Dropout on the adapter's input, in training only."""

    target_modules: str | list[str] = "all-linear"
    """`all-linear` (every Linear but the output head), module names, or patterns (`*.mlp.*`)."""

    rank_pattern: dict[str, Annotated[int, Field(ge=1)]] = {}
    """Another rank for some modules, by name or pattern: `{"*.mlp.*": 32}`. The last that
    matches counts."""

    alpha_pattern: dict[str, Annotated[float, Field(gt=0)]] = {}
    """Another alpha for some modules, likewise."""

    init: Literal["default", "gaussian", "orthogonal", "pissa", "olora", "loftq"] = "default"
    """First values of the factors. `default`: A uniform, B zero. `gaussian`: A normal, B zero.
    `orthogonal`: neither zero, their product zero. `pissa`: the base's principal directions, taken
    off it (Meng et al. 2024). `olora`: the same by QR (Büyükakyüz 2024). `loftq`: what quantising
    the base lost (Li et al. 2023)."""

    loftq_iterations: Annotated[int, Field(ge=1, le=20)] = 1
    """Rounds of quantising and factorising (`init: loftq`)."""

    svd_iterations: Annotated[int, Field(ge=1)] | None = 16
    """Iterations of a randomised SVD (`pissa`, `loftq`). None: the exact SVD, slower."""

    modules_to_save: list[str] = []
    """Modules trained whole and saved with the adapter, by name: a head, an embedding."""

    factors: FactorSpec = FactorSpec()
    """Quantised factors."""

    adalora: AdaLoraSpec = AdaLoraSpec()
    """Rank allocation (`kind: adalora`)."""

    ia3: Ia3Spec = Ia3Spec()
    """Which vectors scale inputs (`kind: ia3`)."""

    vera_initial: Annotated[float, Field(gt=0)] = 0.1
    """First value of VeRA's vector d (Kopiczko et al. 2024)."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        changed = {
            "init": self.init != "default",
            "factors.bits": self.factors.bits is not None,
            "rank_pattern": bool(self.rank_pattern),
            "alpha_pattern": bool(self.alpha_pattern),
            "dropout": self.dropout > 0,
        }
        for key, takers in _TAKEN_BY.items():
            if changed[key] and self.kind not in takers:
                kinds = [taker for taker in takers if taker != "full"]
                listed = " or ".join(filter(None, (", ".join(kinds[:-1]), kinds[-1])))
                raise ValueError(f"adapter.{key} is for adapter.kind: {listed}")
        if self.init in ("pissa", "olora", "loftq") and self.factors.bits is not None:
            raise ValueError(
                f"adapter.init: {self.init} may change the base, whose change is kept in full; "
                "it does not go with adapter.factors.bits"
            )
        if self.adalora.warmup + self.adalora.settle >= 1:
            raise ValueError("adapter.adalora: warmup and settle leave no step to prune in")
        return self
