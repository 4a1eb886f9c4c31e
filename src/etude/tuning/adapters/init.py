"""Where an adapter starts: in the base's principal directions, or in what quantising lost.

    PiSSA   W = Y Σ Zᵀ;  s·B₀A₀ = Y_r Σ_r Z_rᵀ        the base keeps the rest   (Meng et al. 2024)
    OLoRA   W = Q R;     s·B₀A₀ = Q_r R_r             the base keeps the rest   (Büyükakyüz 2024)
    LoftQ   s·B_k A_k = SVD_r(W − Q(W − s·B_{k−1}A_{k−1}))                      (Li et al. 2023)
    orthogonal   the rows of A and the columns of B mixed by the odd and the even rows of one
                 orthogonal matrix, so that B A = 0 while neither factor is

What is taken off the base, T = s·B₀A₀, is zero for an orthogonal start and for LoftQ's first
round. The base then holds W − T, quantised where it is quantised, and what training learns,
relative to W, is ΔW = s·B A − T: a plain LoRA of twice the rank, which is how it is saved.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from etude.core.errors import AdapterError

Requantize = Callable[[Tensor], Tensor]
"""From a weight, (out, in) float32, to what the base stores of it, decoded: Q."""


@dataclass(frozen=True)
class FactorInit:
    """First factors of one module, and those that are taken off its base."""

    A: Tensor
    """(r, in) float32."""
    B: Tensor
    """(out, r) float32."""
    taken: tuple[Tensor, Tensor] | None
    """(A₀, B₀), of which the base loses s·B₀A₀; None: nothing."""


def gaussian(out: int, features: int, rank: int, generator: torch.Generator) -> FactorInit:
    """A normal with deviation 1/r, B zero."""
    A = torch.empty(rank, features).normal_(0, 1 / rank, generator=generator)
    return FactorInit(A, torch.zeros(out, rank), None)


def orthogonal(out: int, features: int, rank: int, generator: torch.Generator) -> FactorInit:
    """Both factors non-zero, their product zero up to rounding.

    Raises:
        AdapterError: the rank is odd.
    """
    if rank % 2:
        raise AdapterError(f"adapter.init: orthogonal needs an even rank, got {rank}")
    q, _ = _linalg().qr(torch.randn(rank, rank, generator=generator, dtype=torch.float64))
    half = rank // 2
    A = q[0::2].T @ torch.randn(half, features, generator=generator, dtype=torch.float64)
    B = torch.randn(out, half, generator=generator, dtype=torch.float64) @ q[1::2]
    return FactorInit((A / 10).float(), (B / 10).float(), None)


def pissa(
    W: Tensor, rank: int, scaling: float, iterations: int | None, generator: torch.Generator
) -> FactorInit:
    """The r largest singular directions of W, split evenly over both factors."""
    pair = split(W, rank, scaling, iterations, generator)
    return FactorInit(*pair, pair)


def olora(W: Tensor, rank: int, scaling: float) -> FactorInit:
    """The first r columns of Q and rows of R, W = Q R."""
    q, r = _linalg().qr(W.double())
    pair = (r[:rank] / scaling).float().contiguous(), q[:, :rank].float().contiguous()
    return FactorInit(*pair, pair)


def loftq(
    W: Tensor,
    rank: int,
    scaling: float,
    iterations: int | None,
    generator: torch.Generator,
    *,
    requantize: Requantize,
    rounds: int,
) -> FactorInit:
    """Quantise and factorise in turn, so that Q + s·B A comes near W."""
    taken: tuple[Tensor, Tensor] | None = None
    pair = split(W - requantize(W), rank, scaling, iterations, generator)
    for _ in range(rounds - 1):
        taken = pair
        rest = W - scaling * taken[1] @ taken[0]
        pair = split(W - requantize(rest), rank, scaling, iterations, generator)
    return FactorInit(*pair, taken)


def split(
    W: Tensor, rank: int, scaling: float, iterations: int | None, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return (A, B), s·B A the best approximation of W of this rank, its weight split evenly.

    Args:
        W: (out, in) float32.
        rank: r.
        scaling: s.
        iterations: of a randomised SVD (Halko et al. 2011, algorithm 4.4); None: the exact SVD.
        generator: of the randomised SVD.
    """
    left, values, right = _largest(W, rank, iterations, generator)
    root = (values / scaling).sqrt()
    return (root[:, None] * right).contiguous(), (left * root).contiguous()


def _largest(
    W: Tensor, rank: int, iterations: int | None, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Return (out, r), (r,), (r, in): the r largest singular triplets of W."""
    wide = min(W.shape)
    if iterations is None or 2 * rank + 10 >= wide:
        left, values, right = _linalg().svd(W, full_matrices=False)
        return left[:, :rank], values[:rank], right[:rank]
    # Twice the rank: the subspace that is kept converges by the gap to the ones it leaves out.
    probe = torch.randn(W.shape[1], 2 * rank + 10, generator=generator)
    basis, _ = _linalg().qr(W @ probe)
    for _ in range(iterations):
        turned, _ = _linalg().qr(W.T @ basis)
        basis, _ = _linalg().qr(W @ turned)
    small, values, right = _linalg().svd(basis.T @ W, full_matrices=False)
    return (basis @ small)[:, :rank], values[:rank], right[:rank]


def _linalg() -> Any:
    return cast("Any", torch.linalg)
