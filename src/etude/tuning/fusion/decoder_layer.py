"""Fused decoder layer: a layer with its adapters as one autograd node.

    n₁ = norm(x)      q, k, v = n₁ Wᵀ (+ LoRA)     o = attention(rotate(q), rotate(k), v)
    y  = x + o Wᵀ (+ LoRA)
    n₂ = norm(y)      g, u = n₂ Wᵀ (+ LoRA)        a = silu(g) ∘ u
    z  = y + a Wᵀ (+ LoRA)

With plain autograd, a layer is about a hundred nodes, each with a pass over memory and a saved
tensor. Here seven matrix products remain, and the operations between them are fused
(`kernels.fused`). Saved for the backward pass are x, q, k, v, o, y, g, u and tensors of width r;
n₁, n₂ and a are recomputed, each in one pass. Products with a common input share the thin product
with their A's. The weights are frozen, so no gradient of their size is computed, and the gradient
of x only if something below it is trained.

The equations of the adapted products are in `projections`; those of attention in
`kernels/native/attention.cpp`. `kernels.fused` selects the CPU or GPU implementation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from etude.tuning.fusion.projections import Factors, Group, Projection, flat, pairs
from etude.tuning.kernels import fused
from etude.tuning.kernels.heads import Heads


@dataclass(frozen=True)
class Norm:
    """An RMS norm, frozen."""

    weight: Tensor
    eps: float


@dataclass(frozen=True)
class DecoderLayer:
    """Frozen weights of a layer; the trained factors are passed separately."""

    attention_norm: Norm
    qkv: tuple[Projection, Projection, Projection]
    output: Projection
    mlp_norm: Norm
    gate_up: tuple[Projection, Projection]
    down: Projection
    heads: Heads

    @property
    def projections(self) -> tuple[Projection, ...]:
        """All seven, in the order in which their factors are passed."""
        return (*self.qkv, self.output, *self.gate_up, self.down)


Groups = tuple[Group, Group, Group, Group]
"""q, k and v; the output of attention; gate and up; down."""


Attend = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""Rotary attention of q, k and v: its result, and the log-sum-exp of each softmax."""

_PASSED = 14


def forward_pass(
    x: Tensor,
    layer: DecoderLayer,
    cosine: Tensor,
    sine: Tensor,
    groups: Groups,
    attend: Attend,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return the layer's output, (T, H), and the tensors its backward pass needs beside x."""
    heads = layer.heads
    qkv, output, gate_up, down = groups
    n1, rstd1 = fused.rms_norm(x, layer.attention_norm.weight, layer.attention_norm.eps)
    (q, k, v), h1 = qkv.forward(n1)
    del n1
    fused.rotate(q, cosine, sine, heads.query)
    fused.rotate(k, cosine, sine, heads.key)
    o, log_norm = attend(q, k, v)
    (y,), h2 = output.forward(o, x)
    n2, rstd2 = fused.rms_norm(y, layer.mlp_norm.weight, layer.mlp_norm.eps)
    (g, u), h3 = gate_up.forward(n2)
    del n2
    a = fused.swiglu(g, u)
    (z,), h4 = down.forward(a, y)
    return z, (rstd1, q, k, v, o, log_norm, y, rstd2, g, u, h1, h2, h3, h4)


class _Layer(torch.autograd.Function):
    """Autograd function of the layer. Rows are (T, H), whole segments end to end."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        layer: DecoderLayer,
        cosine: Tensor,
        sine: Tensor,
        lengths: list[int],
        *factors: Tensor | None,
    ) -> Tensor:
        heads = layer.heads

        def attend(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
            return fused.attention(q, k, v, lengths, heads)

        groups = grouped(layer, pairs(factors))
        z, passed = forward_pass(x, layer, cosine, sine, groups, attend)
        if any(ctx.needs_input_grad):
            present = [f for f in factors if f is not None]
            directions = [d for group in groups for d in group.directions]
            ctx.save_for_backward(x, *passed, cosine, sine, *directions, *present)
            ctx.directions = [len(group.directions) for group in groups]
            ctx.states = [group.state for group in groups]
            ctx.layer, ctx.lengths = layer, lengths
            ctx.given = [f is not None for f in factors]
            ctx.spent = False
        return z

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride] - the decorator hides names
        ctx: Any, grad_output: Tensor
    ) -> tuple[Tensor | None, ...]:
        if ctx.spent:
            raise RuntimeError("a fused layer frees its saved tensors; backward can run only once")
        ctx.spent = True
        saved = cast("tuple[Tensor, ...]", ctx.saved_tensors)
        x, *passed, cosine, sine = saved[: _PASSED + 3]
        rstd1, q, k, v, o, log_norm, y, rstd2, g, u, h1, h2, h3, h4 = passed
        rest = iter(saved[_PASSED + 3 :])
        directions = [[next(rest) for _ in range(count)] for count in ctx.directions]
        layer: DecoderLayer = ctx.layer
        heads = layer.heads
        found = pairs([next(rest) if given else None for given in ctx.given])
        qkv, output, gate_up, down = groups = grouped(layer, found)
        for group, kept, state in zip(groups, directions, ctx.states, strict=True):
            group.directions, group.state = kept, state
        dz = grad_output.contiguous()

        # The gradient of a is computed before a itself is recomputed.
        gh = down.thin_gradient([dz])
        a = fused.swiglu_backward(down.input_gradient([dz], gh), g, u)
        of_down = down.factor_gradients(a, h4, [dz], gh)
        del a

        n2, _ = fused.rms_norm(y, layer.mlp_norm.weight, layer.mlp_norm.eps)
        gh = gate_up.thin_gradient([g, u])
        of_gate_up = gate_up.factor_gradients(n2, h3, [g, u], gh)
        dn2 = gate_up.input_gradient([g, u], gh)
        dy = fused.rms_norm_backward(dn2, y, layer.mlp_norm.weight, rstd2, dz)
        del n2, dn2

        gh = output.thin_gradient([dy])
        of_output = output.factor_gradients(o, h2, [dy], gh)
        do = output.input_gradient([dy], gh)
        dq, dk, dv = fused.attention_backward(do, q, k, v, o, log_norm, ctx.lengths, heads)
        fused.rotate(dq, cosine, sine, heads.query, backwards=True)
        fused.rotate(dk, cosine, sine, heads.key, backwards=True)
        del do

        n1, _ = fused.rms_norm(x, layer.attention_norm.weight, layer.attention_norm.eps)
        gh = qkv.thin_gradient([dq, dk, dv])
        of_qkv = qkv.factor_gradients(n1, h1, [dq, dk, dv], gh)
        dx = None
        if ctx.needs_input_grad[0]:
            dn1 = qkv.input_gradient([dq, dk, dv], gh)
            dx = fused.rms_norm_backward(dn1, x, layer.attention_norm.weight, rstd1, dy)
        return dx, None, None, None, None, *of_qkv, *of_output, *of_gate_up, *of_down


def grouped(layer: DecoderLayer, factors: Sequence[Factors | None]) -> Groups:
    """Return the layer's projections with their factors, grouped by input."""
    return (
        Group(layer.qkv, factors[:3]),
        Group([layer.output], factors[3:4]),
        Group(layer.gate_up, factors[4:6]),
        Group([layer.down], factors[6:]),
    )


_apply = cast(
    "Callable[..., Tensor]",
    _Layer.apply,  # pyright: ignore[reportUnknownMemberType] - torch's is untyped
)


def decoder_layer(
    x: Tensor,
    layer: DecoderLayer,
    cosine: Tensor,
    sine: Tensor,
    lengths: list[int],
    factors: Sequence[Factors | None],
) -> Tensor:
    """Return the layer's output, differentiable in x and the factors.

    Args:
        x: (T, H), contiguous, of a dtype in `fused.dtypes`.
        layer: the frozen weights.
        cosine: (T, head width) float32, cosines of each position's angles.
        sine: (T, head width) float32, likewise.
        lengths: segment lengths; they sum to T.
        factors: A and B of each projection, and DoRA's m, in the order of
            `DecoderLayer.projections`.
    """
    return _apply(x, layer, cosine, sine, lengths, *flat(factors))
