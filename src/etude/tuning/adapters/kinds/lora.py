"""LoRA: a trained product of two thin matrices beside a frozen layer.

         ┌──────────── W (out, in), frozen, dense or quantised ──────┐
    x ───┤                                                           ├─(+)─▶ y
         └─ dropout ─▶ A (r, in) ─▶ h (…, r) ─▶ B (out, r) ─▶ · s ───┘

    y = x Wᵀ + b + s · (x Aᵀ) Bᵀ,  s = α / r        (Hu et al. 2022, "LoRA", eq. 3)
                                   s = α / √r       (Kalajdzievski 2023, "rsLoRA")

In the letters of ΔW = U Vᵀ: U = s·B, V = Aᵀ. B starts at zero, so ΔW does; A starts uniform in
±1/√in, which is PyTorch's and PEFT's initialisation of a Linear. On an Embedding, where A's
columns belong to tokens, A starts at zero and B normal, as in PEFT.

DoRA trains, beside the direction W + ΔW, its length: a magnitude m, one number an output,

    y = m / ‖W + ΔW‖ · x (W + ΔW)ᵀ + b              (Liu et al. 2024, "DoRA", eq. 5)

with the row norms held constant in the backward pass (section 4.3). They are

    ‖W + s·B A‖² = ‖W‖² + 2s · (W Aᵀ ∘ B) + s² · (B A Aᵀ ∘ B),  summed along each row,

so no matrix of the size of W is made for them, and they are computed anew only when A or B change.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from etude.tuning.adapters import bases
from etude.tuning.adapters.bases import Base
from etude.tuning.adapters.fake_quant import rounded
from etude.tuning.config.sections.adapter import FactorSpec

LOW_PRECISION = (torch.bfloat16, torch.float16)


class LowRank(nn.Module):
    """One adapter of one layer: whatever comes down to a pair of factors and a scale.

    Attributes:
        in_features, out_features: sizes of ΔW.
        rank: r. alpha: α. scaling: s.
        dropout: probability of zeroing an element of the adapter's input, in training.
        magnitude: DoRA's m, (out,) float32, or None.
    """

    kind = "lora"

    def __init__(self, base: Base, rank: int, alpha: float, scaling: float, dropout: float) -> None:
        super().__init__()
        self.in_features, self.out_features = bases.sizes(base)
        self.rank = rank
        self.alpha = alpha
        self.scaling = scaling
        self.dropout = dropout
        self.magnitude: nn.Parameter | None = None

    def factors(self) -> tuple[Tensor, Tensor]:
        """Return A (r, in) and B (out, r), differentiable in what is trained."""
        raise NotImplementedError

    def trained(self) -> dict[str, nn.Parameter]:
        """Return the trained tensors by the names that PEFT gives them."""
        raise NotImplementedError

    @property
    def U(self) -> Tensor:  # noqa: N802 - the name in ΔW = U Vᵀ
        """s·B, (out, r)."""
        return self.scaling * self.factors()[1]

    @property
    def V(self) -> Tensor:  # noqa: N802 - the name in ΔW = U Vᵀ
        """Aᵀ, (in, r)."""
        return self.factors()[0].T

    @torch.no_grad()
    def delta(self) -> Tensor:
        """Return s·B A, (out, in), in the dtype of the factors."""
        A, B = self.factors()
        return self.scaling * B @ A

    def drop(self, x: Tensor) -> Tensor | None:
        """Return x with dropout, or None where there is none to apply."""
        return F.dropout(x, self.dropout) if self.training and self.dropout else None

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move to a device or dtype as any module, but keep the factors' precision."""
        before = {name: parameter.data for name, parameter in self.named_parameters()}
        super()._apply(fn, recurse)  # pyright: ignore[reportUnknownMemberType] - torch's is untyped
        for name, parameter in self.named_parameters():
            if parameter.dtype in LOW_PRECISION:
                parameter.data = before[name].to(parameter.device)
        return self

    def extra_repr(self) -> str:
        """Describe the adapter."""
        return f"{self.kind}, rank={self.rank}, scaling={self.scaling:g}, dropout={self.dropout:g}"


class Taken(LowRank):
    """What a start took off the base, T = s·B₀A₀, put back wherever its adapter does not act.

    Attributes:
        owner: name of the adapter that began as T.
        A0: (r, in) float32, frozen. B0: (out, r), likewise.
    """

    kind = "taken"

    def __init__(self, base: Base, owner: str, A0: Tensor, B0: Tensor, scaling: float) -> None:
        super().__init__(base, len(A0), scaling * len(A0), scaling, 0.0)
        self.owner = owner
        device = bases.device(base)
        self.A0 = nn.Parameter(A0.to(device, torch.float32), requires_grad=False)
        self.B0 = nn.Parameter(B0.to(device, torch.float32), requires_grad=False)

    def factors(self) -> tuple[Tensor, Tensor]:
        """Return A₀ and B₀."""
        return self.A0, self.B0

    def trained(self) -> dict[str, nn.Parameter]:
        """Return nothing."""
        return {}


class LoRA(LowRank):
    """LoRA, and with `dora` its decomposed form.

    Attributes:
        lora_A: (rank, in), float32, trained; `.to` a 16-bit dtype leaves it so.
        lora_B: (out, rank), likewise.
        rounding: how the factors are rounded in every forward pass (QAT), or None.
    """

    def __init__(
        self,
        base: Base,
        rank: int,
        alpha: float,
        dropout: float,
        *,
        rslora: bool = False,
        dora: bool = False,
        rounding: FactorSpec | None = None,
    ) -> None:
        """Make a zero adapter; `reset` draws it, or it is loaded."""
        super().__init__(base, rank, alpha, alpha / (math.sqrt(rank) if rslora else rank), dropout)
        self.rslora = rslora
        self.rounding = rounding
        device = bases.device(base)
        self.lora_A = nn.Parameter(torch.zeros(rank, self.in_features, device=device))
        self.lora_B = nn.Parameter(torch.zeros(self.out_features, rank, device=device))
        self._rounded: tuple[tuple[int, int], tuple[Tensor, Tensor]] | None = None
        self._norm: tuple[tuple[int, int], Tensor] | None = None
        self._base_squares: Tensor | None = None
        if dora:
            self.kind = "dora"
            self.magnitude = nn.Parameter(torch.ones(self.out_features, device=device))

    @torch.no_grad()
    def reset(self, base: Base, generator: torch.Generator) -> None:
        """Draw the first values, ΔW = 0; see the head of this module.

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
        self.reset_magnitude(base)

    @torch.no_grad()
    def reset_magnitude(self, base: Base) -> None:
        """Set m to the row norms of W + ΔW, so that DoRA starts as what LoRA computes."""
        if self.magnitude is not None:
            self._base_squares = self._norm = None
            self.magnitude.copy_(self.norm(base))

    def factors(self) -> tuple[Tensor, Tensor]:
        """Return A and B, rounded where the adapter trains rounded (QAT)."""
        if self.rounding is None or self.rounding.bits is None:
            return self.lora_A, self.lora_B
        if torch.is_grad_enabled():
            return rounded(self.lora_A, self.rounding), rounded(self.lora_B.T, self.rounding).T
        version = self._changes()
        if self._rounded is None or self._rounded[0] != version:
            pair = rounded(self.lora_A, self.rounding), rounded(self.lora_B.T, self.rounding).T
            self._rounded = version, pair
        return self._rounded[1]

    def trained(self) -> dict[str, nn.Parameter]:
        """Return `lora_A`, `lora_B` and, for DoRA, `lora_magnitude_vector`."""
        found = {"lora_A": self.lora_A, "lora_B": self.lora_B}
        if self.magnitude is not None:
            found["lora_magnitude_vector"] = self.magnitude
        return found

    @torch.no_grad()
    def norm(self, base: Base) -> Tensor:
        """Return the row norms of W + ΔW, (out,) float32."""
        version = self._changes()
        if self._norm is not None and self._norm[0] == version:
            return self._norm[1]
        A, B = self.factors()
        W = bases.read_matrix(base).to(A.dtype)
        if self._base_squares is None:
            self._base_squares = W.square().sum(1)
        s = self.scaling
        mixed = (W @ A.T * B).sum(1)
        squares = self._base_squares + 2 * s * mixed + s * s * (B @ (A @ A.T) * B).sum(1)
        # Rounding may leave a zero row just below zero; its direction is arbitrary then.
        norm = squares.clamp_(min=torch.finfo(squares.dtype).tiny).sqrt_()
        self._norm = version, norm
        return norm

    def _changes(self) -> tuple[int, int]:
        return self.lora_A._version, self.lora_B._version
