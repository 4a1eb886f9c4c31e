"""LoRA initialisations: PiSSA, OLoRA, LoftQ, orthogonal, gaussian.

    PiSSA   W = Y Σ Zᵀ;  s·B₀A₀ = Y_r Σ_r Z_rᵀ        the base keeps the rest   (Meng et al. 2024)
    OLoRA   W = Q R;     s·B₀A₀ = Q_r R_r             the base keeps the rest   (Büyükakyüz 2024)
    LoftQ   s·B_k A_k = SVD_r(W − Q(W − s·B_{k−1}A_{k−1}))                      (Li et al. 2023)
        orthogonal   rows of A and columns of B are mixtures of the odd and the even rows of one
                     orthogonal matrix, so that B A = 0 although neither factor is zero

The part subtracted from the base, T = s·B₀A₀, is zero for the orthogonal initialisation and in
LoftQ's first round. The base then holds W − T (quantised, if it is quantised), and the learnt
change relative to W is ΔW = s·B A − T: a plain LoRA of twice the rank, which is how it is saved.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from etude.core.errors import AdapterError
from etude.tuning.adapters import bases
from etude.tuning.adapters.bases import Base
from etude.tuning.adapters.low_rank import LowRank
from etude.tuning.config.sections.adapter import AdapterSpec
from etude.tuning.quant.linear import QuantLinear


@dataclass(frozen=True)
class FactorInit:
    """Initial factors of one module, and the factors subtracted from its base."""

    A: Tensor
    """(r, in) float32."""
    B: Tensor
    """(out, r) float32."""
    taken: tuple[Tensor, Tensor] | None
    """(A₀, B₀), where s·B₀A₀ is subtracted from the base; None: nothing."""


@dataclass(frozen=True)
class Layer:
    """Inputs of an initialisation."""

    base: Base
    adapter: LowRank
    """The adapter; its sizes, rank and scale are used."""
    weight: Tensor | None
    """W before quantisation, (out, in) float32; None if the base is not rewritten."""
    spec: AdapterSpec
    generator: torch.Generator

    @property
    def W(self) -> Tensor:  # noqa: N802 - the letter of the equations
        """The weight; must not be None."""
        assert self.weight is not None
        return self.weight

    def split(self, matrix: Tensor) -> tuple[Tensor, Tensor]:
        """Return the factors of the best low-rank approximation of `matrix`; see `split`."""
        rank, scaling = self.adapter.rank, self.adapter.scaling
        return split(matrix, rank, scaling, self.spec.svd_iterations, self.generator)


Make = Callable[[Layer], FactorInit]


@dataclass(frozen=True)
class Initialisation:
    """An initialisation of LoRA: a value of the recipe's `adapter.init`."""

    name: str
    make: Make | None
    """None: the adapter's own `reset`."""
    rewrites_base: bool = False
    """Whether it reads the base's weights and may rewrite them."""
    of_quantised: bool = False
    """Whether it requires a quantised base."""

    def refuse_misfit(self, path: str, base: Base) -> None:
        """Refuse a module that does not support this initialisation.

        Raises:
            AdapterError: the base is not quantised, or in a read-only format.
        """
        if self.of_quantised and not isinstance(base, QuantLinear):
            raise AdapterError(
                f"adapter.init: {self.name} compensates quantisation errors, but {path} is not "
                "quantised; set quant.kind, or another initialisation"
            )
        if self.rewrites_base and isinstance(base, QuantLinear) and base.spec.kind == "native":
            raise AdapterError(
                f"adapter.init: {self.name} rewrites the base, but quant.kind: native keeps the "
                "file's own blocks; set quant.kind: nf4"
            )


_KNOWN = {"default": Initialisation("default", None)}


def initialisation(name: str) -> Initialisation:
    """Return the initialisation of this name, which the recipe has validated."""
    return _KNOWN[name]


def _register(*, rewrites_base: bool = False, of_quantised: bool = False) -> Callable[[Make], Make]:
    """Decorator: register an initialisation by its function's name."""

    def entered(make: Make) -> Make:
        name = make.__name__
        _KNOWN[name] = Initialisation(name, make, rewrites_base, of_quantised)
        return make

    return entered


@_register()
def gaussian(layer: Layer) -> FactorInit:
    """A normal with standard deviation 1/r, B zero."""
    own = layer.adapter
    ranks = own.rank * bases.experts(layer.base)
    A = torch.empty(ranks, own.in_features)
    A.normal_(0, 1 / own.rank, generator=layer.generator)
    return FactorInit(A, torch.zeros(own.out_features, ranks), None)


@_register()
def orthogonal(layer: Layer) -> FactorInit:
    """Both factors non-zero, their product zero up to rounding.

    Raises:
        AdapterError: the rank is odd.
    """
    own, generator = layer.adapter, layer.generator
    rank = own.rank
    if rank % 2:
        raise AdapterError(f"adapter.init: orthogonal needs an even rank, got {rank}")
    q, _ = _linalg().qr(torch.randn(rank, rank, generator=generator, dtype=torch.float64))
    half = rank // 2
    A = q[0::2].T @ torch.randn(half, own.in_features, generator=generator, dtype=torch.float64)
    B = torch.randn(own.out_features, half, generator=generator, dtype=torch.float64) @ q[1::2]
    return FactorInit((A / 10).float(), (B / 10).float(), None)


@_register(rewrites_base=True)
def pissa(layer: Layer) -> FactorInit:
    """The r largest singular triplets of W, split evenly over both factors."""
    pair = layer.split(layer.W)
    return FactorInit(*pair, pair)


@_register(rewrites_base=True)
def olora(layer: Layer) -> FactorInit:
    """The first r columns of Q and rows of R, W = Q R."""
    rank, scaling = layer.adapter.rank, layer.adapter.scaling
    q, r = _linalg().qr(layer.W.double())
    pair = (r[:rank] / scaling).float().contiguous(), q[:, :rank].float().contiguous()
    return FactorInit(*pair, pair)


@_register(rewrites_base=True, of_quantised=True)
def loftq(layer: Layer) -> FactorInit:
    """Alternate quantisation and factorisation, so that Q + s·B A approximates W."""
    quantized, W = cast("QuantLinear", layer.base), layer.W

    def requantize(weight: Tensor) -> Tensor:
        quantized.overwrite(weight)
        return quantized.dequantize(torch.float32)

    taken: tuple[Tensor, Tensor] | None = None
    pair = layer.split(W - requantize(W))
    for _ in range(layer.spec.loftq_iterations - 1):
        taken = pair
        rest = W - layer.adapter.scaling * taken[1] @ taken[0]
        pair = layer.split(W - requantize(rest))
    if taken is None:
        quantized.overwrite(W)
    return FactorInit(*pair, taken)


def split(
    W: Tensor, rank: int, scaling: float, iterations: int | None, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return (A, B) with s·B A the best rank-r approximation of W, singular values split evenly.

    Args:
        W: (out, in) float32.
        rank: r.
        scaling: s.
        iterations: of a randomised SVD (Halko et al. 2011, algorithm 4.4); None: the exact SVD.
        generator: random generator of the randomised SVD.
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
    # Oversample to twice the rank: convergence depends on the gap to the discarded directions.
    # Drawn on the CPU on every device, so that a seed gives the same result everywhere.
    probe = torch.randn(W.shape[1], 2 * rank + 10, generator=generator).to(W.device)
    basis, _ = _linalg().qr(W @ probe)
    for _ in range(iterations):
        turned, _ = _linalg().qr(W.T @ basis)
        basis, _ = _linalg().qr(W @ turned)
    small, values, right = _linalg().svd(basis.T @ W, full_matrices=False)
    return (basis @ small)[:, :rank], values[:rank], right[:rank]


def _linalg() -> Any:
    return cast("Any", torch.linalg)
