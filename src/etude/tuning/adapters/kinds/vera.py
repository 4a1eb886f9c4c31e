"""VeRA: one random pair of factors for the whole model, two trained vectors a module.

    ΔW = diag(b) · B[:out] · diag(d) · A[:, :in]        (Kopiczko et al. 2024, "VeRA", eq. 2)

A (r, largest in) and B (largest out, r) are drawn once, from a seed, and frozen; every module takes
the corner that it needs. d (r,) starts at a constant, b (out,) at zero, so ΔW starts at zero.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from etude.tuning.adapters import bases
from etude.tuning.adapters.bases import Base
from etude.tuning.adapters.kinds.lora import LowRank


@dataclass(frozen=True)
class Projections:
    """The frozen random factors that all modules share."""

    A: Tensor
    """(rank, largest in_features), float32."""
    B: Tensor
    """(largest out_features, rank), float32."""

    @classmethod
    def draw(cls, rank: int, in_features: int, out_features: int, seed: int) -> Projections:
        """Draw both uniformly by Kaiming's rule for a fan-in: A first, then B, as PEFT does."""
        generator = torch.Generator().manual_seed(seed)

        def uniform(rows: int, columns: int) -> Tensor:
            bound = math.sqrt(3.0) * math.sqrt(2.0) / math.sqrt(columns)
            return torch.empty(rows, columns).uniform_(-bound, bound, generator=generator)

        return cls(uniform(rank, in_features), uniform(out_features, rank))


class VeRA(LowRank):
    """VeRA on one module.

    Attributes:
        vera_lambda_d: (rank,), trained. vera_lambda_b: (out,), trained.
        projections: shared by all modules; not in this module's parameters.
    """

    kind = "vera"

    def __init__(self, base: Base, projections: Projections, dropout: float) -> None:
        """Make the adapter with both vectors zero; `reset`, or load it."""
        rank = len(projections.A)
        super().__init__(base, rank, float(rank), 1.0, dropout)
        device = bases.device(base)
        self.vera_lambda_d = nn.Parameter(torch.zeros(rank, device=device))
        self.vera_lambda_b = nn.Parameter(torch.zeros(self.out_features, device=device))
        self.projections = projections

    @torch.no_grad()
    def reset(self, initial: float) -> None:
        """Set d to `initial` and b to zero."""
        self.vera_lambda_d.fill_(initial)
        self.vera_lambda_b.zero_()

    def factors(self) -> tuple[Tensor, Tensor]:
        """Return diag(d)·A and diag(b)·B, cut to this module."""
        d, b = self.vera_lambda_d, self.vera_lambda_b
        A = self.projections.A[:, : self.in_features].to(d)
        B = self.projections.B[: self.out_features].to(b)
        return d[:, None] * A, b[:, None] * B

    def trained(self) -> dict[str, nn.Parameter]:
        """Return `vera_lambda_b` and `vera_lambda_d`."""
        return {"vera_lambda_b": self.vera_lambda_b, "vera_lambda_d": self.vera_lambda_d}
