"""LoRA adapter layer: a trained low-rank update of a frozen layer.

         ┌──────────── W (out, in), frozen, dense or quantised ──────┐
    x ───┤                                                           ├─(+)─▶ y
         └─ dropout ─▶ A (r, in) ─▶ h (…, r) ─▶ B (out, r) ─▶ · s ───┘

    y = x Wᵀ + b + s · (x Aᵀ) Bᵀ,  s = α / r        (Hu et al. 2022, "LoRA", eq. 3)
                                   s = α / √r       (Kalajdzievski 2023, "rsLoRA")

In the letters of ΔW = U Vᵀ: U = s·B, V = Aᵀ. B starts at zero, so ΔW does; A starts uniform in
±1/√in, which is PyTorch's and PEFT's initialisation of a Linear. On an Embedding, where A's
columns belong to tokens, A starts at zero and B normal, as in PEFT.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from etude.core.errors import AdapterError
from etude.tuning.adapters import bases
from etude.tuning.adapters.adapter import Adapter
from etude.tuning.adapters.bases import Base
from etude.tuning.adapters.fake_quant import rounded
from etude.tuning.adapters.low_rank import LowRank, Taken
from etude.tuning.adapters.registry import (
    AdapterKind,
    AdapterTensor,
    Settings,
    copy_trained,
    register,
)
from etude.tuning.adapters.saved_parts import CONFIG, PeftOptions, SavedPart, WrittenPart, weight_of
from etude.tuning.config.sections.adapter import AdapterSpec, FactorSpec

NEUTRAL_INIT = (True, False, None, "gaussian", "eva", "orthogonal")
"""PEFT's initialisations that do not change the base."""


REPEATED_INIT = ("pissa", "olora", "OLoRA")
"""Those that PEFT repeats on the base when it loads the adapter, and `load_adapter` as well. PiSSA
by a randomised SVD (`pissa_niter_16`) is drawn anew each time, so it cannot be repeated."""


class LoRA(LowRank):
    """LoRA adapter of one module.

    Attributes:
        lora_A: (rank, in), float32, trained; unaffected by `.to` a 16-bit dtype.
        lora_B: (out, rank), likewise. On E experts (rank·E, in) and (out, rank·E); see `stacked`.
        rounding: how the factors are rounded in every forward pass (QAT), or None.
    """

    kind = "lora"

    def __init__(
        self,
        base: Base,
        rank: int,
        alpha: float,
        dropout: float,
        *,
        rslora: bool = False,
        rounding: FactorSpec | None = None,
    ) -> None:
        """Create a zero adapter; initialise it with `reset` or by loading."""
        super().__init__(base, rank, alpha, alpha / (math.sqrt(rank) if rslora else rank), dropout)
        self.rslora = rslora
        self.rounding = rounding
        device = bases.device(base)
        ranks = rank * bases.experts(base)
        self.lora_A = nn.Parameter(torch.zeros(ranks, self.in_features, device=device))
        self.lora_B = nn.Parameter(torch.zeros(self.out_features, ranks, device=device))
        self._rounded: tuple[tuple[int, int], tuple[Tensor, Tensor]] | None = None

    @torch.no_grad()
    def reset(self, base: Base, generator: torch.Generator) -> None:
        """Draw the initial values with ΔW = 0; see the module docstring.

        A's bound is Kaiming's uniform rule with a = √5 (He et al. 2015).
        """
        if isinstance(base, nn.Embedding):
            self.lora_A.zero_()
            self.lora_B.copy_(torch.empty(self.lora_B.shape).normal_(generator=generator))
        else:
            bound = 1 / math.sqrt(self.in_features)
            start = torch.empty(self.lora_A.shape).uniform_(-bound, bound, generator=generator)
            self.lora_A.copy_(start)
            self.lora_B.zero_()

    def factors(self) -> tuple[Tensor, Tensor]:
        """Return A and B, rounded under QAT."""
        if self.rounding is None or self.rounding.bits is None:
            return self.lora_A, self.lora_B
        if torch.is_grad_enabled():
            return rounded(self.lora_A, self.rounding), rounded(self.lora_B.T, self.rounding).T
        version = self.changes()
        if self._rounded is None or self._rounded[0] != version:
            pair = rounded(self.lora_A, self.rounding), rounded(self.lora_B.T, self.rounding).T
            self._rounded = version, pair
        return self._rounded[1]

    def trained(self) -> dict[str, nn.Parameter]:
        """Return `lora_A` and `lora_B`."""
        return {"lora_A": self.lora_A, "lora_B": self.lora_B}

    def changes(self) -> tuple[int, int]:
        """Return version counters that change with the factors."""
        return self.lora_A._version, self.lora_B._version


@register
class LoRAKind(AdapterKind):
    """LoRA, and the base class of kinds that PEFT stores like LoRA."""

    name = "lora"
    peft_type = "LORA"
    tensors = (
        AdapterTensor("lora_A", "lora_A.weight", embedding="lora_embedding_A"),
        AdapterTensor("lora_B", "lora_B.weight", embedding="lora_embedding_B", up=True),
    )
    config_keys = frozenset(
        {
            *("r", "lora_alpha", "lora_dropout", "init_lora_weights", "use_rslora", "use_dora"),
            *("rank_pattern", "alpha_pattern", "layers_pattern", "ensure_weight_tying"),
            *("megatron_core", "runtime_config", "qalora_group_size", "loftq_config"),
            *("eva_config", "corda_config", "lora_ga_config", "target_parameters"),
        }
    )

    trains_biases = True
    use_dora = False
    """PEFT's `use_dora`."""

    adapter_class: type[LoRA] = LoRA

    def refuse_misfit(self, path: str, base: Base, rank: int) -> None:
        """Refuse a rank larger than the matrix allows."""
        features, out = bases.sizes(base)
        if rank > min(features, out):
            raise AdapterError(
                f"adapter.rank {rank} is too large for {path}, a matrix of {out} × {features}; use "
                f"at most {min(features, out)}, or leave it out of adapter.target_modules"
            )

    def build(
        self, found: dict[str, Base], settings: dict[str, Settings], spec: AdapterSpec, seed: int
    ) -> dict[str, Adapter]:
        """Create the adapters, which share no tensors."""
        del seed
        return {path: self.make(base, *settings[path], spec) for path, base in found.items()}

    def make(self, base: Base, rank: int, alpha: float, spec: AdapterSpec) -> Adapter:
        """Create the adapter of one module."""
        rounding = spec.factors if spec.factors.when == "training" else None
        return self.adapter_class(
            base, rank, alpha, spec.dropout, rslora=spec.rslora, rounding=rounding
        )

    def written(self, adapter: Adapter, base: Base, taken: Taken | None) -> WrittenPart | None:
        """Return plain LoRA factors, followed by the part subtracted from the base."""
        pair = cast("LowRank", adapter).stored_factors()
        if pair is None:
            return None
        down, up, alpha = pair
        if taken is not None:
            A0, B0 = taken.factors()
            down, up = torch.cat([down, A0]), torch.cat([up, -B0], 1)
            # Twice the rank at the same scale.
            alpha *= math.sqrt(2) if cast("LoRA", adapter).rslora else 2
        rank = len(down) // bases.experts(base)
        return WrittenPart(_as_peft_shapes(base, down, up), rank, alpha)

    def peft_config(
        self,
        common: dict[str, Any],
        spec: AdapterSpec,
        parts: Mapping[str, WrittenPart],
        adapters: Mapping[str, Adapter],
    ) -> dict[str, Any]:
        """Return the configuration: the most common rank and alpha, and exceptions by module."""
        del adapters
        scales = {path: (part.rank, part.alpha) for path, part in parts.items()}
        # PEFT matches the patterns with the path of what it adapts, a module or its weight.
        parameters: list[str] = common.get("target_parameters") or []
        names = {path: weight_of(path) for path in scales if weight_of(path) in parameters}
        rank, alpha = _commonest(list(scales.values())) if scales else (spec.rank, spec.alpha)
        return {
            "peft_type": "LORA",
            **common,
            "r": rank,
            "lora_alpha": _plain_number(alpha),
            "rank_pattern": {
                names.get(path, path): r for path, (r, _) in scales.items() if r != rank
            },
            "alpha_pattern": {
                names.get(path, path): _plain_number(a)
                for path, (_, a) in scales.items()
                if a != alpha
            },
            # PEFT refuses dropout beside `target_parameters`; it has no effect after training.
            "lora_dropout": 0.0 if parameters else spec.dropout,
            "init_lora_weights": True,
            "use_dora": self.use_dora,
            "use_rslora": spec.rslora,
        }

    def claims(self, config: Mapping[str, Any]) -> bool:
        """Return whether it is PEFT's LORA, with or without DoRA."""
        return super().claims(config) and bool(config.get("use_dora")) == self.use_dora

    def numbers(self, config: Mapping[str, Any]) -> tuple[Any, Any, Any]:
        """Return `r`, `lora_alpha` and `lora_dropout`."""
        return config.get("r"), config.get("lora_alpha"), config.get("lora_dropout", 0.0)

    def unsupported(self, config: Mapping[str, Any]) -> list[str]:
        """Return `init_lora_weights` where the adapter was trained on a changed base."""
        made = config.get("init_lora_weights", True)
        known = made in NEUTRAL_INIT or (made in REPEATED_INIT and not self.use_dora)
        bad = [] if known else ["init_lora_weights"]
        return (
            [*bad, "target_parameters"]
            if self.use_dora and config.get("target_parameters")
            else bad
        )

    def read_part(
        self, module: str, found: dict[str, Tensor], options: PeftOptions
    ) -> SavedPart | None:
        """Check that the factors have the configured rank."""
        refuse_no_matrix(module, found, options)
        rank, named = len(found["lora_A"]), options.rank_of(module)
        if rank != named or found["lora_B"].shape[1] != named:
            other = rank if rank != named else found["lora_B"].shape[1]
            raise AdapterError(
                f"{options.folder}: {module} has rank {other}, {CONFIG} says {named}"
            )
        alpha = options.alpha_of(module)
        return SavedPart(found, rank, alpha, alpha / self._divisor(rank, options))

    def shape(
        self, module: str, part: SavedPart, options: PeftOptions, base: Base
    ) -> tuple[int, int]:
        """Return B's rows and A's columns."""
        del module, options, base
        return len(part.tensors["lora_B"]), part.tensors["lora_A"].shape[1]

    def restore(
        self,
        parts: Mapping[str, SavedPart],
        found: Mapping[str, Base],
        options: PeftOptions,
        shared: Mapping[str, Tensor],
    ) -> dict[str, Adapter]:
        """Create the adapters. The saved scale is authoritative; alpha follows from it."""
        del shared
        adapters: dict[str, Adapter] = {}
        for path, part in parts.items():
            alpha = part.scaling * self._divisor(part.rank, options)
            adapter = self.adapter_class(
                found[path], part.rank, alpha, options.dropout, rslora=_rslora(options)
            )
            adapters[path] = copy_trained(adapter, part)
        return adapters

    def _divisor(self, rank: int, options: PeftOptions) -> float:
        return math.sqrt(rank) if _rslora(options) else rank


def refuse_no_matrix(module: str, found: Mapping[str, Tensor], options: PeftOptions) -> None:
    """Refuse factors that are not matrices.

    Raises:
        AdapterError: a factor does not have two dimensions.
    """
    for name in ("lora_A", "lora_B"):
        if found[name].dim() != 2:
            raise AdapterError(f"{options.folder}: {module}.{name} is not a floating-point matrix")


def _as_peft_shapes(base: Base, down: Tensor, up: Tensor) -> dict[str, Tensor]:
    if isinstance(base, nn.Embedding):
        return {"lora_embedding_A": down, "lora_embedding_B": up}
    if isinstance(base, nn.Conv1d | nn.Conv2d):
        down = down.view(len(down), base.in_channels, *base.kernel_size)
        up = up.reshape(*up.shape, *([1] * len(base.kernel_size)))
    return {"lora_A.weight": down, "lora_B.weight": up}


def _rslora(options: PeftOptions) -> bool:
    return bool(options.config.get("use_rslora"))


def _commonest(scales: Sequence[Settings]) -> Settings:
    ranks, alphas = [rank for rank, _ in scales], [alpha for _, alpha in scales]
    return max(ranks, key=ranks.count), max(alphas, key=alphas.count)


def _plain_number(value: float) -> float | int:
    return int(value) if float(value).is_integer() else value
