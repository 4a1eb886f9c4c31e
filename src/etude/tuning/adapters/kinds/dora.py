"""DoRA: weight-decomposed low-rank adaptation, training direction and magnitude separately.

The direction is W + ΔW with LoRA's ΔW; the magnitude is a trained vector m, one entry per output,

    y = m / ‖W + ΔW‖ · x (W + ΔW)ᵀ + b              (Liu et al. 2024, "DoRA", eq. 5)

with the row norms held constant in the backward pass (section 4.3). They are

    ‖W + s·B A‖² = ‖W‖² + 2s · (W Aᵀ ∘ B) + s² · (B A Aᵀ ∘ B),  summed along each row,

so they need no matrix of the size of W, and are recomputed only when A or B change.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from etude.tuning.adapters import bases
from etude.tuning.adapters.adapter import Adapter
from etude.tuning.adapters.bases import Base, LinearLike
from etude.tuning.adapters.kinds.lora import LoRA, LoRAKind
from etude.tuning.adapters.low_rank import Taken
from etude.tuning.adapters.registry import AdapterTensor, register
from etude.tuning.adapters.saved_parts import WrittenPart
from etude.tuning.adapters.scaled_product import scaled_product
from etude.tuning.config.sections.adapter import FactorSpec


class DoRA(LoRA):
    """DoRA adapter of one module.

    Attributes:
        magnitude: m, (out,) float32, trained.
    """

    kind = "dora"
    no_sum = "a DoRA adapter scales the base itself"

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
        """Create an adapter with zero factors and unit magnitude; use `reset` or load it."""
        super().__init__(base, rank, alpha, dropout, rslora=rslora, rounding=rounding)
        device = bases.device(base)
        self.magnitude = nn.Parameter(torch.ones(self.out_features, device=device))
        self._norm: tuple[tuple[int, int], Tensor] | None = None
        self._base_squares: Tensor | None = None

    @torch.no_grad()
    def reset(self, base: Base, generator: torch.Generator) -> None:
        """Draw the factors as LoRA's, and set m to the row norms of W + ΔW."""
        super().reset(base, generator)
        self._base_squares = self._norm = None
        self.magnitude.copy_(self.norm(base))

    def trained(self) -> dict[str, nn.Parameter]:
        """Return `lora_A`, `lora_B` and `lora_magnitude_vector`."""
        return {**super().trained(), "lora_magnitude_vector": self.magnitude}

    @torch.no_grad()
    def norm(self, base: Base) -> Tensor:
        """Return the row norms of W + ΔW, (out,) float32."""
        version = self.changes()
        if self._norm is not None and self._norm[0] == version:
            return self._norm[1]
        A, B = self.factors()
        W = bases.read_matrix(base).to(A.dtype)
        if self._base_squares is None:
            self._base_squares = W.square().sum(1)
        s = self.scaling
        mixed = (W @ A.T * B).sum(1)
        squares = self._base_squares + 2 * s * mixed + s * s * (B @ (A @ A.T) * B).sum(1)
        # Rounding may make the squared norm of a zero row slightly negative.
        norm = squares.clamp_(min=torch.finfo(squares.dtype).tiny).sqrt_()
        self._norm = version, norm
        return norm

    def change(self, base: Base, x: Tensor, y: Tensor | None) -> Tensor:
        """Return (m / ‖W + ΔW‖ − 1) W x + m / ‖W + ΔW‖ · s·B A x.

        As in PEFT, dropout also applies to the base's part of the change.
        """
        seen = self.seen(base, x)
        low = self.thin_change(base, seen)
        # In float32, for the layer to round the sum once: see `scaled_product`.
        ratio = bases.along_channels(base, self.magnitude / self.norm(base))
        plain = bases.without_bias(base, seen, y if seen is x else None)
        return (ratio - 1) * plain + ratio * low

    def product(self, base: LinearLike, x: Tensor) -> Tensor | None:
        """Return m / ‖W + ΔW‖ · x (W + ΔW)ᵀ + b; with dropout, see `change`."""
        return scaled_product(
            base,
            x,
            self.factors(),
            self.magnitude,
            self.norm(base),
            self.scaling,
            dropped=self.drop(x),
        )

    def add_delta(self, W: Tensor, base: Base) -> None:
        """Add m / ‖W + ΔW‖ · (W + ΔW) − W."""
        A, B = self.factors()
        ratio = (self.magnitude / self.norm(base))[:, None]
        plain = bases.read_matrix(base)
        W.add_(plain.addmm(B.float(), A.float(), alpha=self.scaling).mul_(ratio).sub_(plain))

    def plain_factors(self) -> None:
        """Return None, because of the magnitude."""

    def fused_parts(self, base: Base) -> tuple[tuple[Tensor, ...], Tensor | None]:
        """Return A, B and m, and the norms."""
        return (*self.factors(), self.magnitude), self.norm(base)


@register
class DoRAKind(LoRAKind):
    """DoRA: PEFT's LORA with `use_dora`, and the magnitude beside the factors.

    The magnitude has no weight decay: it starts at the norms of the base, so decay would shrink the
    base itself, where for the factors it shrinks ΔW.
    """

    name = "dora"
    tensors = (
        *LoRAKind.tensors,
        AdapterTensor("lora_magnitude_vector", "lora_magnitude_vector", decays=False),
    )
    beyond_factors = "DoRA's magnitudes"
    use_dora = True
    adapter_class = DoRA

    def written(self, adapter: Adapter, base: Base, taken: Taken | None) -> WrittenPart | None:
        """Return the factors as LoRA's, and the magnitude."""
        part = super().written(adapter, base, taken)
        if part is not None:
            part.tensors["lora_magnitude_vector"] = cast("DoRA", adapter).magnitude
        return part
