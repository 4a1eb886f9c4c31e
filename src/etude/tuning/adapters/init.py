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
from etude.tuning.adapters.bases import Base
from etude.tuning.adapters.low_rank import LowRank
from etude.tuning.config.sections.adapter import AdapterSpec
from etude.tuning.quant.linear import QuantLinear


@dataclass(frozen=True)
class FactorInit:
    """First factors of one module, and those that are taken off its base."""

    A: Tensor
    """(r, in) float32."""
    B: Tensor
    """(out, r) float32."""
    taken: tuple[Tensor, Tensor] | None
    """(A₀, B₀), of which the base loses s·B₀A₀; None: nothing."""


@dataclass(frozen=True)
class Layer:
    """What an initialisation is made for."""

    base: Base
    adapter: LowRank
    """Its sizes, rank and scale count."""
    weight: Tensor | None
    """W before quantisation, (out, in) float32; None for what does not rewrite the base."""
    spec: AdapterSpec
    generator: torch.Generator

    @property
    def W(self) -> Tensor:  # noqa: N802 - the letter of the equations
        """The weight, which is there."""
        assert self.weight is not None
        return self.weight

    def split(self, matrix: Tensor) -> tuple[Tensor, Tensor]:
        """Return the factors of the best approximation of `matrix`, (out, in); see `split`."""
        rank, scaling = self.adapter.rank, self.adapter.scaling
        return split(matrix, rank, scaling, self.spec.svd_iterations, self.generator)


Make = Callable[[Layer], FactorInit]


@dataclass(frozen=True)
class Initialisation:
    """One way for a LoRA to begin: a value of the recipe's `adapter.init`."""

    name: str
    make: Make | None
    """None: as the adapter itself has it."""
    rewrites_base: bool = False
    """Whether it reads the whole base and may write another one."""
    of_quantised: bool = False
    """Whether it makes sense on a quantised base only."""

    def refuse_misfit(self, path: str, base: Base) -> None:
        """Refuse a module on which the adapter cannot begin so.

        Raises:
            AdapterError: the base is not quantised, or in a format that is not written.
        """
        if self.of_quantised and not isinstance(base, QuantLinear):
            raise AdapterError(
                f"adapter.init: {self.name} makes up for quantising the base, and {path} is not "
                "quantised; set quant.kind, or another start"
            )
        if self.rewrites_base and isinstance(base, QuantLinear) and base.spec.kind == "native":
            raise AdapterError(
                f"adapter.init: {self.name} writes another base, and quant.kind: native keeps the "
                "file's own; set quant.kind: nf4"
            )


_KNOWN = {"default": Initialisation("default", None)}


def initialisation(name: str) -> Initialisation:
    """Return the initialisation of this name; recipes name no other."""
    return _KNOWN[name]


def _register(*, rewrites_base: bool = False, of_quantised: bool = False) -> Callable[[Make], Make]:
    """Enter an initialisation under its function's name; a decorator."""

    def entered(make: Make) -> Make:
        name = make.__name__
        _KNOWN[name] = Initialisation(name, make, rewrites_base, of_quantised)
        return make

    return entered


@_register()
def gaussian(layer: Layer) -> FactorInit:
    """A normal with deviation 1/r, B zero."""
    own = layer.adapter
    A = torch.empty(own.rank, own.in_features)
    A.normal_(0, 1 / own.rank, generator=layer.generator)
    return FactorInit(A, torch.zeros(own.out_features, own.rank), None)


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
    """The r largest singular directions of W, split evenly over both factors."""
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
    """Quantise and factorise in turn, so that Q + s·B A comes near W."""
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
    # Drawn on the processor, whatever the device, so that a seed means the same everywhere.
    probe = torch.randn(W.shape[1], 2 * rank + 10, generator=generator).to(W.device)
    basis, _ = _linalg().qr(W @ probe)
    for _ in range(iterations):
        turned, _ = _linalg().qr(W.T @ basis)
        basis, _ = _linalg().qr(W @ turned)
    small, values, right = _linalg().svd(basis.T @ W, full_matrices=False)
    return (basis @ small)[:, :rank], values[:rank], right[:rank]


def _linalg() -> Any:
    return cast("Any", torch.linalg)
