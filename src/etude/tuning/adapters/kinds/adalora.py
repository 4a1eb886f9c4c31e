"""AdaLoRA: adaptive rank allocation under a rank budget.

    ΔW = s · P diag(e) Q,   P (out, r), Q (r, in), e (r,),   s = α / r

Every module starts above its target rank. Each triplet i of a module (e_i, its row of Q, its
column of P) gets an importance,

    S_i = s(e_i) + mean_j s(Q_ij) + mean_j s(P_ji),    s(w) = Ī(w) · Ū(w)

where Ī smooths I = |w · ∂loss/∂w| by β₁ and Ū smooths |I − Ī| by β₂ (Zhang et al. 2023, "AdaLoRA",
eqs. 7-10). The budget decreases along a cubic from its start to its end (eq. 12), and after each
step the e_i outside the budget's most important ones, over all modules, are set to zero; they stay
trainable, so they may return. P and Q are kept nearly orthogonal by a penalty
‖PᵀP − I‖ + ‖QQᵀ − I‖ (eq. 6, with unsquared norms, as in the authors' code and PEFT).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from etude.tuning.adapters import bases
from etude.tuning.adapters.adapter import Adapter
from etude.tuning.adapters.bases import Base
from etude.tuning.adapters.kinds.lora import LoRAKind, refuse_no_matrix
from etude.tuning.adapters.low_rank import LowRank
from etude.tuning.adapters.registry import AdapterTensor, register
from etude.tuning.adapters.saved_parts import PeftOptions, SavedPart
from etude.tuning.callbacks import Callback
from etude.tuning.config.sections.adapter import AdaLoraSpec, AdapterSpec


class AdaLoRA(LowRank):
    """AdaLoRA adapter of one module.

    Attributes:
        lora_A: Q, (r, in). lora_B: P, (out, r). lora_E: e, (r, 1). All trained.
    """

    kind = "adalora"

    def __init__(self, base: Base, rank: int, alpha: float, dropout: float) -> None:
        """Create the adapter with all factors zero; initialise it with `reset` or by loading."""
        super().__init__(base, rank, alpha, alpha / rank, dropout)
        device = bases.device(base)
        self.lora_A = nn.Parameter(torch.zeros(rank, self.in_features, device=device))
        self.lora_B = nn.Parameter(torch.zeros(self.out_features, rank, device=device))
        self.lora_E = nn.Parameter(torch.zeros(rank, 1, device=device))

    @torch.no_grad()
    def reset(self, base: Base, generator: torch.Generator) -> None:
        """Draw P and Q normal with standard deviation 0.02 and set e to zero, so that ΔW = 0."""
        del base
        for factor in (self.lora_A, self.lora_B):
            factor.copy_(torch.empty(factor.shape).normal_(0, 0.02, generator=generator))
        self.lora_E.zero_()

    def factors(self) -> tuple[Tensor, Tensor]:
        """Return diag(e)·Q and P."""
        return self.lora_E * self.lora_A, self.lora_B

    def trained(self) -> dict[str, nn.Parameter]:
        """Return `lora_A`, `lora_B` and `lora_E`."""
        return {"lora_A": self.lora_A, "lora_B": self.lora_B, "lora_E": self.lora_E}

    @torch.no_grad()
    def stored_factors(self) -> tuple[Tensor, Tensor, float] | None:
        """Return (A, B, α) of the equivalent plain LoRA; None if all ranks were pruned.

        Pruned ranks are dropped; α is such that α / rank is this layer's scale.
        """
        kept = self.lora_E.view(-1) != 0
        rank = int(kept.sum())
        if rank == 0:
            return None
        A, B = self.factors()
        # Split e evenly, to balance the norms of the factors.
        root = self.lora_E.abs().sqrt()[kept]
        return A[kept] / root, B[:, kept] * root.T, self.scaling * rank

    def penalty(self) -> Tensor:
        """Return ‖PᵀP − I‖ + ‖QQᵀ − I‖."""
        P, Q = self.lora_B, self.lora_A
        eye = torch.eye(self.rank, dtype=P.dtype, device=P.device)
        return (P.T @ P - eye).square().sum().sqrt() + (Q @ Q.T - eye).square().sum().sqrt()


class RankAllocator(Callback):
    """Reallocates the ranks of a model's AdaLoRA modules, once per optimiser step.

    Args:
        layers: the adapters by module.
        spec: the recipe's `adapter.adalora` section.
        target_rank: mean final rank of a module.
    """

    def __init__(self, layers: dict[str, AdaLoRA], spec: AdaLoraSpec, target_rank: int) -> None:
        self.layers = dict(sorted(layers.items()))
        self.spec = spec
        self.first_budget = sum(layer.rank for layer in layers.values())
        self.last_budget = min(self.first_budget, target_rank * len(layers))
        self.total_steps = 1
        """Optimiser steps of the run, known when training begins."""
        self._state: dict[str, Tensor] = {}
        for name, layer in self.layers.items():
            for factor, parameter in layer.trained().items():
                for what in ("importance", "uncertainty"):
                    self._state[f"{name}.{factor}.{what}"] = torch.zeros_like(parameter)
            self._state[f"{name}.kept"] = torch.ones(layer.rank, dtype=torch.bool)

    def state(self) -> dict[str, Tensor]:
        """Return importances, uncertainties and rank masks, by module and factor."""
        return self._state

    def on_train_begin(self, total_steps: int, step: int) -> None:
        """Record the number of steps, for the pruning schedule."""
        del step
        self.total_steps = total_steps

    def on_plan_change(self, total_steps: int) -> None:
        """Adopt the reduced number of steps."""
        self.total_steps = total_steps

    def budget(self, step: int) -> tuple[int, bool]:
        """Return the rank budget after `step` (from 1), and whether to prune now.

        Zhang et al. 2023, eq. 12: all ranks during warm-up, then a cubic decay to the target.
        """
        begin = int(self.spec.warmup * self.total_steps)
        end = self.total_steps - int(self.spec.settle * self.total_steps)
        if step <= begin:
            return self.first_budget, False
        if step > end:
            return self.last_budget, step == end + 1
        left = 1 - (step - begin) / (end - begin)
        budget = int((self.first_budget - self.last_budget) * left**3 + self.last_budget)
        return budget, step % self.spec.every == 0 or step == end

    def on_gradients(self) -> None:
        """Add the penalty's gradient to that of the loss."""
        if not self.spec.orthogonality or not self.layers:
            return
        total = cast("Tensor", sum(layer.penalty() for layer in self.layers.values()))
        weight = self.spec.orthogonality / (2 * len(self.layers))
        (weight * total).backward()  # pyright: ignore[reportUnknownMemberType]

    @torch.no_grad()
    def on_optimizer_step(self, step: int) -> None:
        """Update the importances from the gradients of this step, and prune to the budget."""
        settled = step > self.total_steps - int(self.spec.settle * self.total_steps)
        budget, prune = self.budget(step)
        if not settled:
            self._observe()
        if prune:
            self._prune(budget)
        elif settled:
            self._mask()

    def ranks(self) -> dict[str, int]:
        """Return the remaining ranks by module."""
        return {name: int(self._state[f"{name}.kept"].sum()) for name in self.layers}

    def _observe(self) -> None:
        b1, b2 = self.spec.beta1, self.spec.beta2
        for name, layer in self.layers.items():
            for factor, parameter in layer.trained().items():
                if parameter.grad is None:
                    continue
                now = (parameter * parameter.grad).abs()
                mean = self._state[f"{name}.{factor}.importance"]
                mean.mul_(b1).add_(now, alpha=1 - b1)
                spread = self._state[f"{name}.{factor}.uncertainty"]
                spread.mul_(b2).add_((now - mean).abs(), alpha=1 - b2)

    def _scores(self, name: str) -> Tensor:
        def score(factor: str) -> Tensor:
            key = f"{name}.{factor}"
            return self._state[f"{key}.importance"] * self._state[f"{key}.uncertainty"]

        rows, columns = score("lora_A").mean(1), score("lora_B").mean(0)
        return score("lora_E").view(-1) + rows + columns

    def _prune(self, budget: int) -> None:
        scores = {name: self._scores(name) for name in self.layers}
        everything = torch.cat(list(scores.values()))
        out = everything.numel() - budget
        threshold = everything.sort().values[out - 1] if out > 0 else everything.new_tensor(-1.0)
        for name in self.layers:
            self._state[f"{name}.kept"].copy_(scores[name] > threshold)
        self._mask()

    def _mask(self) -> None:
        """Zero the pruned triplets, which must stay zero in the last part of the run."""
        for name, layer in self.layers.items():
            keep = self._state[f"{name}.kept"].to(layer.lora_E.device)
            layer.lora_E.masked_fill_(~keep[:, None], 0)


@register
class AdaLoRAKind(LoRAKind):
    """AdaLoRA, saved and read as the equivalent LoRA, with a different rank in each module."""

    name = "adalora"
    peft_type = "ADALORA"
    tensors = (*LoRAKind.tensors, AdapterTensor("lora_E", "lora_E"))
    config_keys = LoRAKind.config_keys | {
        *("target_r", "init_r", "tinit", "tfinal", "deltaT", "beta1", "beta2"),
        *("orth_reg_weight", "total_step"),
    }
    may_leave_out = True
    read_as = LoRAKind.name

    def make(self, base: Base, rank: int, alpha: float, spec: AdapterSpec) -> Adapter:
        """Create the adapter of one module with its initial rank."""
        first = spec.adalora.initial_rank or -(-3 * rank // 2)
        return AdaLoRA(base, min(first, *bases.sizes(base)), alpha, spec.dropout)

    def callbacks(self, adapters: Mapping[str, Adapter], spec: AdapterSpec) -> list[Callback]:
        """Return the rank allocator."""
        layers = {path: cast("AdaLoRA", adapter) for path, adapter in adapters.items()}
        return [RankAllocator(layers, spec.adalora, spec.rank)]

    def numbers(self, config: Mapping[str, Any]) -> tuple[Any, Any, Any]:
        """Return `target_r`, `lora_alpha` and `lora_dropout`."""
        return config.get("target_r"), *super().numbers(config)[1:]

    def unsupported(self, config: Mapping[str, Any]) -> list[str]:
        """Return nothing: AdaLoRA has one initialisation only."""
        del config
        return []

    def rank_pattern(self, config: Mapping[str, Any]) -> dict[str, int]:
        """Return nothing: AdaLoRA's `rank_pattern` lists kept triplets, not ranks."""
        del config
        return {}

    def read_part(
        self, module: str, found: dict[str, Tensor], options: PeftOptions
    ) -> SavedPart | None:
        """Return the remaining ranks as a LoRA."""
        refuse_no_matrix(module, found, options)
        A, B, E = found["lora_A"], found["lora_B"], found["lora_E"].view(-1)
        scaling = options.alpha / (len(A) + 1e-5)  # PEFT's way of never dividing by zero
        kept = E != 0
        left = int(kept.sum())
        if not left:
            return None
        pair = {"lora_A": (E[:, None] * A)[kept], "lora_B": B[:, kept]}
        return SavedPart(pair, left, scaling * left, scaling)
