"""A layer of experts' weights, stacked: of each expert one product, with its own low-rank change.

    y[n] = W_e x[n] + b_e + s · B_e (A_e x[n]),  e the expert of row n

    W (E, out, in), or (E, in, out) where it is transposed
    A (r·E, in): expert by expert, r rows each          B (out, r·E): rank by rank, E columns each

The layout of A and B is that of PEFT's `target_parameters` on a weight of three dimensions
(`peft.tuners.lora.layer.ParamWrapper`). Rows come sorted by their expert. PEFT adds s·B_e A_e to
each W_e before the product, a copy as large as all experts; here each row goes through r numbers,
and no weight is copied.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class StackedLinear(nn.Module):
    """The frozen weights of one product of all experts.

    Attributes:
        weight: (E, out, in), or (E, in, out).
        transposed: whether it is (E, in, out).
        in_features, out_features: sizes of one expert's W.
        bias: None; the experts' biases stay with their module.
    """

    bias = None

    def __init__(self, weight: nn.Parameter, *, transposed: bool) -> None:
        super().__init__()
        weight.requires_grad_(False)
        self.weight = weight
        self.transposed = transposed
        self.experts = len(weight)
        first, second = weight.shape[1:]
        self.in_features, self.out_features = (first, second) if transposed else (second, first)

    def matrices(self) -> Tensor:
        """Return W as (E, out, in), a view."""
        return self.weight.transpose(1, 2) if self.transposed else self.weight

    def as_stored(self, matrices: Tensor) -> Tensor:
        """Return (E, out, in) in the shape of the weight."""
        return matrices.transpose(1, 2) if self.transposed else matrices

    def extra_repr(self) -> str:
        """Describe the layer."""
        return f"experts={self.experts}, in={self.in_features}, out={self.out_features}"


def by_expert(A: Tensor, B: Tensor, experts: int) -> tuple[Tensor, Tensor]:
    """Return A as (E, r, in) and B as (E, out, r); see the module's docstring."""
    rank = len(A) // experts
    up = B.view(len(B), rank, experts).permute(2, 0, 1)
    return A.view(experts, rank, A.shape[1]), up


def grouped_product(
    base: StackedLinear, x: Tensor, counts: Sequence[int], low: tuple[Tensor, Tensor] | None
) -> Tensor:
    """Return each row's product with its expert's weight and change, (N, out).

    Args:
        base: the weights.
        x: (N, in), sorted by expert, in the dtype of the weights.
        counts: rows of each expert.
        low: A (E, r, in) and s·B (E, out, r), float32 as a rule; None: the weights alone.
    """
    A, B = (None, None) if low is None else low
    apply = cast("Any", _GroupedProduct.apply)  # pyright: ignore[reportUnknownMemberType]
    return apply(x, A, B, base.matrices(), tuple(counts))


class _GroupedProduct(torch.autograd.Function):
    """As `grouped_product`; of the weights no gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        A: Tensor | None,
        B: Tensor | None,
        weights: Tensor,
        counts: tuple[int, ...],
    ) -> Tensor:
        y = x.new_empty(len(x), weights.shape[1])
        h = None if A is None else x.new_empty(len(x), A.shape[1])
        for expert, rows in _groups(counts):
            W = weights[expert].t()
            if A is None or B is None or h is None:
                y[rows] = x[rows] @ W
                continue
            h[rows] = x[rows] @ A[expert].t().to(x.dtype)
            # The change first, and the wide product added to it in float32: in 16 bits y + Δ
            # would round an early adapter's change away.
            thin = h[rows] @ B[expert].t().to(x.dtype)
            y[rows] = thin.addmm_(x[rows], W)
        ctx.save_for_backward(x if A is not None else None, A, B, weights, h)
        ctx.counts = counts
        return y

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride] - one output
        ctx: Any, g: Tensor
    ) -> tuple[Tensor | None, ...]:
        saved = cast("tuple[Tensor | None, ...]", ctx.saved_tensors)
        x, A, B, weights, h = saved
        assert weights is not None
        wants_x, wants_A, wants_B = ctx.needs_input_grad[:3]
        # Experts that no row went to have none.
        dx = g.new_empty(len(g), weights.shape[2]) if wants_x else None
        dA = torch.zeros_like(A) if A is not None and wants_A else None
        dB = torch.zeros_like(B) if B is not None and wants_B else None
        for expert, rows in _groups(ctx.counts):
            gh = None
            if A is not None and B is not None:
                gh = g[rows] @ B[expert].to(g.dtype)
            if dx is not None:
                wide = weights[expert]
                if A is None or gh is None:
                    dx[rows] = g[rows] @ wide
                else:
                    dx[rows] = (gh @ A[expert].to(g.dtype)).addmm_(g[rows], wide)
            if dA is not None and gh is not None and x is not None:
                dA[expert] = gh.t() @ x[rows]
            if dB is not None and h is not None:
                dB[expert] = g[rows].t() @ h[rows]
        return dx, dA, dB, None, None


def _groups(counts: Sequence[int]) -> Iterator[tuple[int, slice]]:
    """Yield each expert that has rows, and which."""
    start = 0
    for expert, count in enumerate(counts):
        if count:
            yield expert, slice(start, start + count)
        start += count
