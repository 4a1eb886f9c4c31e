"""`adapter`: the trained weights and their parametrisation."""

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
    "bias": ("lora", "dora", "full"),
}
"""Keys that only some kinds support; `full` ignores keys that it does not use."""

TRAINS_UP_FACTOR = ("lora", "dora", "adalora")
"""The kinds with a trained factor U, to which `train.loraplus_lr_ratio` applies."""


class FactorSpec(Section):
    """Quantisation of the adapter's factors: ΔW ≈ Û V̂ᵀ with x̂ = round(s·x)/s, clipped."""

    bits: Literal[2, 3, 4, 5, 6, 7, 8] | None = None
    """Bits per element of U and V. None: float32."""

    when: Literal["after", "training"] = "training"
    """`after`: round once, after training (PTQ). `training`: round in every forward pass, with a
    straight-through gradient (QAT)."""

    scale: Literal["tensor", "row", "block"] = "row"
    """Granularity of the scales: a whole factor, each of its r rank vectors or `block` elements."""

    block: Literal[32, 64, 128, 256] = 64
    """Elements per scale (`scale: block` only)."""


class AdaLoraSpec(Section):
    """Rank allocation of AdaLoRA (Zhang et al. 2023): start above the target rank and prune."""

    initial_rank: Annotated[int, Field(ge=1)] | None = None
    """Initial rank of every module. None: 1.5 times `adapter.rank`."""

    warmup: Fraction = 0.1
    """Fraction of the steps before pruning starts."""

    settle: Fraction = 0.3
    """Fraction of the steps, at the end, with fixed ranks."""

    every: Annotated[int, Field(ge=1)] = 1
    """Optimiser steps between prunings."""

    beta1: Fraction = 0.85
    """Smoothing coefficient β₁ of the sensitivities."""

    beta2: Fraction = 0.85
    """Smoothing coefficient β₂ of their uncertainty."""

    orthogonality: Annotated[float, Field(ge=0)] = 0.5
    """Weight of the penalty ‖PᵀP − I‖² + ‖QQᵀ − I‖² in the loss."""


class Ia3Spec(Section):
    """IA³ (Liu et al. 2022): trained vectors l scale the outputs or inputs of the target modules.

    Outputs are scaled, y = l ⊙ (W x + b), except for the last Linear of a feed-forward block, whose
    inputs are: y = W (l ⊙ x) + b. l is initialised to one. The paper scales keys, values and
    feed-forward blocks: `target_modules: [k_proj, v_proj, down_proj]`. Rank and alpha do not apply,
    and learning rates ten times LoRA's are common.
    """

    feedforward: list[str] | None = None
    """Target modules whose inputs are scaled, by name or pattern. None: the targets among
    down_proj, mlp.c_proj, fc2, w2 and dense_4h_to_h."""


class AdapterSpec(Section):
    """The trained weights and their parametrisation."""

    kind: Literal["lora", "dora", "vera", "adalora", "ia3", "head", "full"] = "lora"
    """`lora`: ΔW = U Vᵀ on the target modules. `dora`: LoRA for the direction, plus a trained
    magnitude. `vera`: U and V random, frozen and shared; two trained vectors. `adalora`: ΔW = P Λ Q
    with adaptive ranks. `ia3`: a trained vector scales outputs or inputs. `head`: only the task's
    head and `modules_to_save`, on a frozen model. `full`: full fine-tuning of all weights."""

    rank: Annotated[int, Field(ge=1)] = 16
    """Rank r, the number of columns of U and V."""

    alpha: Annotated[float, Field(gt=0)] = 32.0
    """Scale of the update: ΔW is multiplied by alpha / rank."""

    rslora: bool = False
    """rsLoRA: scale by alpha / √rank, so that large ranks learn as fast (Kalajdzievski 2023)."""

    dropout: Fraction = 0.0
    """Dropout probability of the adapter's input during training."""

    target_modules: str | list[str] = "all-linear"
    """`all-linear` (every Linear except the output head, gates of one output, and what is not
    called or PEFT refuses, as in Mamba), module names, or patterns (`*.mlp.*`)."""

    target_parameters: list[str] = []
    """Weights of experts that a model keeps in one tensor each, by name or pattern:
    `["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]` (Mixtral, Qwen3-MoE, GPT-OSS). Each
    expert has factors of its own rank. `kind: lora` only, without dropout."""

    layers: list[Annotated[int, Field(ge=0)]] = []
    """Numbers of the layers whose target modules are adapted: `[20, 21, 22]`. Empty: all."""

    rank_pattern: dict[str, Annotated[int, Field(ge=1)]] = {}
    """Ranks of particular modules, by name or pattern: `{"*.mlp.*": 32}`. The last match
    applies."""

    alpha_pattern: dict[str, Annotated[float, Field(gt=0)]] = {}
    """Alphas of particular modules, likewise."""

    init: Literal["default", "gaussian", "orthogonal", "pissa", "olora", "loftq"] = "default"
    """Initialisation of the factors. `default`: A uniform, B zero. `gaussian`: A normal, B zero.
    `orthogonal`: neither zero, their product zero. `pissa`: the base's principal components, which
    are subtracted from the base (Meng et al. 2024). `olora`: the same by QR (Büyükakyüz 2024).
    `loftq`: the quantisation error of the base (Li et al. 2023)."""

    start_from: str | None = None
    """Go on from a saved adapter: a run (`latest`, its name or folder), or an adapter's folder,
    Etude's or PEFT's. Kind, target modules, ranks, alphas and initialisation must be the same; the
    optimiser and the schedule begin anew. To train a run for longer: `etude tune --resume`."""

    loftq_iterations: Annotated[int, Field(ge=1, le=20)] = 1
    """Alternating quantisation and factorisation steps (`init: loftq`)."""

    svd_iterations: Annotated[int, Field(ge=1)] | None = 16
    """Iterations of a randomised SVD (`pissa`, `loftq`). None: the exact SVD, slower."""

    modules_to_save: list[str] = []
    """Modules trained in full and saved with the adapter, by name: a head, an embedding."""

    bias: Literal["none", "lora_only", "all"] = "none"
    """Biases trained beside the factors: of no module, of the adapted ones, or of all (BitFit, Ben
    Zaken et al. 2022). Saved with the adapter; many models have none."""

    factors: FactorSpec = FactorSpec()
    """Quantisation of the factors."""

    adalora: AdaLoraSpec = AdaLoraSpec()
    """Rank allocation (`kind: adalora`)."""

    ia3: Ia3Spec = Ia3Spec()
    """Modules whose inputs are scaled (`kind: ia3`)."""

    vera_initial: Annotated[float, Field(gt=0)] = 0.1
    """Initial value of VeRA's vector d (Kopiczko et al. 2024)."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        changed = {
            "init": self.init != "default",
            "factors.bits": self.factors.bits is not None,
            "rank_pattern": bool(self.rank_pattern),
            "alpha_pattern": bool(self.alpha_pattern),
            "dropout": self.dropout > 0,
            "bias": self.bias != "none",
        }
        for key, takers in _TAKEN_BY.items():
            if changed[key] and self.kind not in takers:
                kinds = [taker for taker in takers if taker != "full"]
                listed = " or ".join(filter(None, (", ".join(kinds[:-1]), kinds[-1])))
                raise ValueError(f"adapter.{key} is for adapter.kind: {listed}")
        if self.target_parameters:
            self._check_parameters()
        if self.init in ("pissa", "olora", "loftq") and self.factors.bits is not None:
            raise ValueError(
                f"adapter.init: {self.init} may change the base and is saved in full precision; "
                "it cannot be combined with adapter.factors.bits"
            )
        if self.adalora.warmup + self.adalora.settle >= 1:
            raise ValueError("adapter.adalora: warmup and settle leave no steps for pruning")
        return self

    def _check_parameters(self) -> None:
        """Refuse what PEFT cannot hold beside `target_parameters`."""
        unfit = {
            "kind": self.kind not in ("lora", "full"),
            "dropout": self.dropout > 0,
            "init": self.init not in ("default", "gaussian"),
            "bias": self.bias != "none",
        }
        for key, is_unfit in unfit.items():
            if is_unfit and self.kind != "full":
                raise ValueError(
                    f"adapter.target_parameters: not with adapter.{key}: {getattr(self, key)}, "
                    "which PEFT has none of for weights of experts; leave one of them out"
                )
