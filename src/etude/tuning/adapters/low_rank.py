"""Base class of adapters that reduce to a pair of factors: ΔW = s·B A, A (r, in), B (out, r)."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from etude.tuning.adapters import bases
from etude.tuning.adapters.adapter import Adapter
from etude.tuning.adapters.bases import Base, LinearLike
from etude.tuning.adapters.product import adapted_product
from etude.tuning.adapters.stacked import StackedLinear, by_expert


class LowRank(Adapter):
    """An adapter of one layer that reduces to a pair of factors and a scale."""

    def factors(self) -> tuple[Tensor, Tensor]:
        """Return A (r, in) and B (out, r), differentiable in the trained tensors."""
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

    def change(self, base: Base, x: Tensor, y: Tensor | None) -> Tensor:
        """Return s·B A x, with dropout in training."""
        del y
        return self.thin_change(base, self.seen(base, x))

    def seen(self, base: Base, x: Tensor) -> Tensor:
        """Return the factors' input: x with dropout, except for an embedding's token ids."""
        dropped = None if isinstance(base, nn.Embedding) else self.drop(x)
        return x if dropped is None else dropped

    def thin_change(self, base: Base, x: Tensor) -> Tensor:
        """Return s·B A x for any kind of base, in the base's compute dtype."""
        return self.scaling * _low_rank(base, x, *self.factors())

    def product(self, base: LinearLike, x: Tensor) -> Tensor | None:
        """Return x Wᵀ + b + s·(x Aᵀ) Bᵀ as one autograd node."""
        A, B = self.factors()
        return adapted_product(base, x, A, B, self.scaling, dropped=self.drop(x))

    def add_delta(self, W: Tensor, base: Base) -> None:
        """Add s·B A to W, (out, in); to that of each expert, (E, out, in)."""
        A, B = self.factors()
        if isinstance(base, StackedLinear):
            each = by_expert(A.float(), B.float(), base.experts)
            W.baddbmm_(each[1], each[0], alpha=self.scaling)
            return
        W.addmm_(B.float(), A.float(), alpha=self.scaling)

    def plain_factors(self) -> tuple[Tensor, Tensor] | None:
        """Return A and B, or None while dropout is active."""
        return None if self.drops else self.factors()

    def fused_parts(self, base: Base) -> tuple[tuple[Tensor, ...], Tensor | None]:
        """Return A and B, and no norms."""
        del base
        return self.factors(), None

    @torch.no_grad()
    def stored_factors(self) -> tuple[Tensor, Tensor, float] | None:
        """Return A, B and α as saved; None if all ranks were pruned."""
        A, B = self.factors()
        return A.detach(), B.detach(), self.alpha

    def as_lora(self, path: str) -> tuple[Tensor, Tensor, float] | None:
        """Return A, B and α, if they are equivalent to the adapter."""
        return self.stored_factors() if self.no_sum is None else super().as_lora(path)


class Taken(LowRank):
    """The part T = s·B₀A₀ subtracted from the base, restored while its adapter is inactive.

    Attributes:
        owner: name of the adapter initialised with T.
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
        """Return an empty dictionary."""
        return {}


def _low_rank(base: Base, x: Tensor, A: Tensor, B: Tensor) -> Tensor:
    """Return B A x for any kind of base, in the base's compute dtype."""
    dtype = bases.compute_dtype(base)
    down, up = A.to(dtype), B.to(dtype)
    if isinstance(base, nn.Embedding):
        y = F.embedding(x, down.T, base.padding_idx) @ up.T
        scale: Any = getattr(base, "embed_scale", None)
        return y if scale is None else y * torch.as_tensor(scale).to(y.dtype)
    if isinstance(base, nn.Conv1d | nn.Conv2d):
        kernel = down.view(len(down), base.in_channels, *base.kernel_size)
        # The base's own padding rule, with another weight.
        h = cast("Any", base)._conv_forward(x, kernel, None)
        point = up.reshape(*up.shape, *([1] * len(base.kernel_size)))
        return (F.conv1d if isinstance(base, nn.Conv1d) else F.conv2d)(h, point)
    return (x.to(dtype) @ down.T @ up.T).to(x.dtype)
