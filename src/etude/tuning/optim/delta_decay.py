"""Decay of the change ΔW = s·B A itself, beside the decay of its factors.

`train.weight_decay` shrinks A and B, as any trained weight: with the penalty λ/2 (‖B‖² + ‖A‖²) on
the factors. Over all factors of one product that penalty is at least λ ‖B A‖_*, the sum of the
singular values (Srebro et al. 2004, lemma 1), so a minimum has singular values that are lower by a
constant, and no small ones: on the quadratic ½‖U Vᵀ − T‖² they are max(0, σ − λ).

`train.delta_decay` is the penalty λ/2 ‖ΔW‖² instead, the decay of ΔW that full fine-tuning has when
it decays towards the base: on the quadratic every singular value is σ / (1 + λ), large ones lose
the most, and none is cut off. Its decoupled step moves the factors along that penalty's gradient,

    B ← B − lr λ s² B (A Aᵀ)          A ← A − lr λ s² (Bᵀ B) A

both from the values before the step, as AdamW decays a weight before it takes its step, each at its
own learning rate (LoRA+). The Gram matrices are r × r, so this costs less than the gradient's norm.

Scaling each factor by √(1 − lr λ) would multiply the product by 1 − lr λ, but it is no decay of ΔW:
to first order it is `weight_decay` of λ/2, with the same minima, as the gradient reaches ΔW through
the factors as well. What a decay does is where it comes to rest against the gradient, not how fast
it shrinks a product that has none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor

from etude.core.errors import RunError
from etude.tuning.adapters.adapter import Adapter
from etude.tuning.adapters.kinds.lora import LoRA


class DeltaDecay:
    """The decoupled decay of ΔW of LoRA adapters; see the module docstring.

    Args:
        adapters: LoRA adapters by the path of their module.
        optimizer: of their factors; its groups have their learning rates.
        decay: λ.
    """

    def __init__(
        self, adapters: Mapping[str, Adapter], optimizer: torch.optim.Optimizer, decay: float
    ) -> None:
        self.decay = decay
        self._optimizer = optimizer
        groups = {
            id(parameter): group
            for group in optimizer.param_groups
            for parameter in cast("list[Tensor]", group["params"])
        }
        self._members: list[tuple[str, LoRA, dict[str, Any], dict[str, Any]]] = [
            (path, adapter, groups[id(adapter.lora_A)], groups[id(adapter.lora_B)])
            for path, adapter in adapters.items()
            if isinstance(adapter, LoRA)
        ]

    def step(self) -> None:
        """Decay every ΔW once; called before the optimiser's step, with its learning rates set.

        Raises:
            RunError: the decay of one step would overshoot zero.
        """
        for path, adapter, group_A, group_B in self._members:
            rates = self.decay * group_A["lr"], self.decay * group_B["lr"]
            if not decay_delta(adapter.lora_A, adapter.lora_B, adapter.scaling, *rates):
                raise RunError(
                    f"train.delta_decay {self.decay:g} at learning rate {group_B['lr']:.1e} "
                    f"would overshoot zero in one step at {path}, whose factors are large; lower "
                    "one of them"
                )


@torch.no_grad()
def decay_delta(A: Tensor, B: Tensor, scaling: float, rate_A: float, rate_B: float) -> bool:
    """Move the factors of ΔW = s·B A along the gradient of ½‖ΔW‖², in place.

    Args:
        A: (r, in).
        B: (out, r).
        scaling: s.
        rate_A: lr · λ of A.
        rate_B: lr · λ of B.

    Returns:
        False, with nothing changed, if the step would overshoot zero in some direction.
    """
    of_A, of_B = scaling**2 * (A @ A.T), scaling**2 * (B.T @ B)
    # The Frobenius norm bounds the largest eigenvalue.
    sizes = [float(gram.square().sum().sqrt()) for gram in (of_A, of_B)]
    if max(rate_B * sizes[0], rate_A * sizes[1]) >= 1:
        return False
    change_B, change_A = B @ of_A, of_B @ A
    B.sub_(change_B, alpha=rate_B)
    A.sub_(change_A, alpha=rate_A)
    return True
