"""Fused encoder layer, as in BERT: a layer with its adapters as one autograd node.

    q, k, v = x Wᵀ + b (+ LoRA)       o = attention(q, k, v), in both directions, with dropout
    s = x + dropout(o Wᵀ + b (+ LoRA))     y = norm(s)
    g = y Wᵀ + b (+ LoRA)                  a = gelu(g)
    t = y + dropout(a Wᵀ + b (+ LoRA))     z = norm(t)

Six matrix products remain, and between them five passes over memory (`kernels.fused`). Saved for
the backward pass are x, q, k, v, o, s, g, t and tensors of width r; y and a are recomputed, each in
one pass. Weights, biases and norms are frozen, and the gradient of x is computed only if something
below it is trained.

Of a last layer whose head reads some rows alone, only k and v are computed for all rows; q and what
comes after attention have a row for each that is read (`_ReadLayer`).

Dropout is drawn from a seed and the place of a number (`kernels.dropout`), so nothing of it is
saved. The seeds of a layer are drawn from PyTorch's generator whenever the layer runs: the trainer
seeds that from (seed, step), and checkpointing restores it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd.function import once_differentiable

from etude.tuning.fusion.projections import Factors, Group, Projection, flat, pairs
from etude.tuning.kernels import fused
from etude.tuning.kernels.dropout import Dropout
from etude.tuning.kernels.heads import Heads


@dataclass(frozen=True)
class LayerNorm:
    """A layer norm, frozen."""

    weight: Tensor
    bias: Tensor
    eps: float


@dataclass(frozen=True)
class Shares:
    """Probabilities of dropout, 0 in evaluation."""

    weights: float
    """Of attention's weights."""
    attention: float
    """Of attention's output."""
    mlp: float
    """Of the MLP's output."""


@dataclass(frozen=True)
class EncoderLayer:
    """Frozen weights of a layer; the trained factors are passed separately."""

    qkv: tuple[Projection, Projection, Projection]
    output: Projection
    attention_norm: LayerNorm
    up: Projection
    down: Projection
    mlp_norm: LayerNorm
    heads: Heads
    shares: Shares


Groups = tuple[Group, Group, Group, Group]
"""q, k and v; the output of attention; up; down."""

_PASSED = 16


def _grouped(layer: EncoderLayer, factors: Sequence[Factors | None]) -> Groups:
    return (
        Group(layer.qkv, factors[:3]),
        Group([layer.output], factors[3:4]),
        Group([layer.up], factors[4:5]),
        Group([layer.down], factors[5:]),
    )


class _Layer(torch.autograd.Function):
    """Autograd function of the layer. Rows are (T, H), whole segments end to end."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        layer: EncoderLayer,
        lengths: list[int],
        dropouts: tuple[Dropout, Dropout, Dropout],
        *factors: Tensor | None,
    ) -> Tensor:
        qkv, output, up, down = _grouped(layer, pairs(factors))
        of_weights, of_attention, of_mlp = dropouts
        first, last = layer.attention_norm, layer.mlp_norm
        (q, k, v), h1 = qkv.forward(x)
        o, log_norm = fused.attention(q, k, v, lengths, layer.heads, of_weights)
        (s,), h2 = output.forward(o)
        y, *moments1 = fused.add_norm(s, x, first.weight, first.bias, first.eps, of_attention)
        (g,), h3 = up.forward(y)
        a = fused.gelu(g)
        (t,), h4 = down.forward(a)
        del a
        z, *moments2 = fused.add_norm(t, y, last.weight, last.bias, last.eps, of_mlp)
        if any(ctx.needs_input_grad):
            present = [factor for factor in factors if factor is not None]
            passed = (q, k, v, o, log_norm, s, *moments1, g, t, *moments2, h1, h2, h3, h4)
            ctx.save_for_backward(x, *passed, *present)
            ctx.layer, ctx.lengths, ctx.dropouts = layer, lengths, dropouts
            ctx.given = [factor is not None for factor in factors]
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
        x, *passed = saved[: _PASSED + 1]
        q, k, v, o, log_norm, s, mean1, rstd1, g, t, mean2, rstd2, h1, h2, h3, h4 = passed
        present = iter(saved[_PASSED + 1 :])
        layer: EncoderLayer = ctx.layer
        of_weights, of_attention, of_mlp = ctx.dropouts
        found = pairs([next(present) if given else None for given in ctx.given])
        qkv, output, up, down = _grouped(layer, found)
        first, last = layer.attention_norm, layer.mlp_norm
        dz = grad_output.contiguous()

        dt, d_down = fused.add_norm_backward(dz, None, t, last.weight, mean2, rstd2, of_mlp)
        gh = down.thin_gradient([d_down])
        a = fused.gelu_backward(down.input_gradient([d_down], gh), g)
        of_down = down.factor_gradients(a, h4, [d_down], gh)
        del a, d_down

        y = fused.layer_norm(s, first.weight, first.bias, mean1, rstd1)
        gh = up.thin_gradient([g])
        of_up = up.factor_gradients(y, h3, [g], gh)
        dy = up.input_gradient([g], gh)
        del y
        ds, d_out = fused.add_norm_backward(dy, dt, s, first.weight, mean1, rstd1, of_attention)
        del dy, dt

        gh = output.thin_gradient([d_out])
        of_output = output.factor_gradients(o, h2, [d_out], gh)
        do = output.input_gradient([d_out], gh)
        del d_out
        dq, dk, dv = fused.attention_backward(
            do, q, k, v, o, log_norm, ctx.lengths, layer.heads, of_weights
        )
        del do

        gh = qkv.thin_gradient([dq, dk, dv])
        of_qkv = qkv.factor_gradients(x, h1, [dq, dk, dv], gh)
        dx = None
        if ctx.needs_input_grad[0]:
            dx = qkv.input_gradient([dq, dk, dv], gh).add_(ds)
        return dx, None, None, None, *of_qkv, *of_output, *of_up, *of_down


class _ReadLayer(torch.autograd.Function):
    """Autograd function of a layer of which some rows are read: n of T.

    Attention runs on all rows: those of q that nobody reads are zero, and so are their gradients.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        layer: EncoderLayer,
        lengths: list[int],
        rows: Tensor,
        dropouts: tuple[Dropout, Dropout, Dropout],
        *factors: Tensor | None,
    ) -> Tensor:
        query, keys, output, up, down = _read_groups(layer, pairs(factors))
        of_weights, of_attention, of_mlp = dropouts
        first, last = layer.attention_norm, layer.mlp_norm
        read = x.index_select(0, rows)
        (k, v), h0 = keys.forward(x)
        (own,), h1 = query.forward(read)
        q = _spread(own, rows, len(x))
        o, log_norm = fused.attention(q, k, v, lengths, layer.heads, of_weights)
        (s,), h2 = output.forward(o.index_select(0, rows))
        y, *moments1 = fused.add_norm(s, read, first.weight, first.bias, first.eps, of_attention)
        (g,), h3 = up.forward(y)
        a = fused.gelu(g)
        (t,), h4 = down.forward(a)
        z, *moments2 = fused.add_norm(t, y, last.weight, last.bias, last.eps, of_mlp)
        if any(ctx.needs_input_grad):
            present = [factor for factor in factors if factor is not None]
            passed = (q, k, v, o, log_norm, s, *moments1, g, t, *moments2, h0, h1, h2, h3, h4)
            ctx.save_for_backward(x, rows, *passed, *present)
            ctx.layer, ctx.lengths, ctx.dropouts = layer, lengths, dropouts
            ctx.given = [factor is not None for factor in factors]
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
        x, rows, *passed = saved[: _PASSED + 3]
        q, k, v, o, log_norm, s, mean1, rstd1, g, t, mean2, rstd2, h0, h1, h2, h3, h4 = passed
        present = iter(saved[_PASSED + 3 :])
        layer: EncoderLayer = ctx.layer
        of_weights, of_attention, of_mlp = ctx.dropouts
        found = pairs([next(present) if given else None for given in ctx.given])
        query, keys, output, up, down = _read_groups(layer, found)
        first, last = layer.attention_norm, layer.mlp_norm
        dz = grad_output.contiguous()

        dt, d_down = fused.add_norm_backward(dz, None, t, last.weight, mean2, rstd2, of_mlp)
        gh = down.thin_gradient([d_down])
        a = fused.gelu_backward(down.input_gradient([d_down], gh), g)
        of_down = down.factor_gradients(a, h4, [d_down], gh)
        y = fused.layer_norm(s, first.weight, first.bias, mean1, rstd1)
        gh = up.thin_gradient([g])
        of_up = up.factor_gradients(y, h3, [g], gh)
        dy = up.input_gradient([g], gh)
        ds, d_out = fused.add_norm_backward(dy, dt, s, first.weight, mean1, rstd1, of_attention)
        gh = output.thin_gradient([d_out])
        of_output = output.factor_gradients(o.index_select(0, rows), h2, [d_out], gh)
        do = _spread(output.input_gradient([d_out], gh), rows, len(x))
        dq, dk, dv = fused.attention_backward(
            do, q, k, v, o, log_norm, ctx.lengths, layer.heads, of_weights
        )
        own = dq.index_select(0, rows)
        gh = query.thin_gradient([own])
        of_query = query.factor_gradients(x.index_select(0, rows), h1, [own], gh)
        gh_keys = keys.thin_gradient([dk, dv])
        of_keys = keys.factor_gradients(x, h0, [dk, dv], gh_keys)
        dx = None
        if ctx.needs_input_grad[0]:
            dx = keys.input_gradient([dk, dv], gh_keys)
            dx.index_add_(0, rows, query.input_gradient([own], gh).add_(ds))
        of_all = (*of_query, *of_keys, *of_output, *of_up, *of_down)
        return dx, None, None, None, None, *of_all


def _read_groups(
    layer: EncoderLayer, factors: Sequence[Factors | None]
) -> tuple[Group, Group, Group, Group, Group]:
    """Return q; k and v; and the groups after attention."""
    _, *rest = _grouped(layer, factors)
    output, up, down = rest
    query, keys = Group(layer.qkv[:1], factors[:1]), Group(layer.qkv[1:], factors[1:3])
    return query, keys, output, up, down


def _spread(values: Tensor, rows: Tensor, count: int) -> Tensor:
    """Return (count, width), zero but for `rows`."""
    return values.new_zeros(count, values.shape[1]).index_copy_(0, rows, values)


_apply = cast(
    "Callable[..., Tensor]",
    _Layer.apply,  # pyright: ignore[reportUnknownMemberType] - torch's is untyped
)
_apply_read = cast(
    "Callable[..., Tensor]",
    _ReadLayer.apply,  # pyright: ignore[reportUnknownMemberType] - torch's is untyped
)


def encoder_layer(
    x: Tensor,
    layer: EncoderLayer,
    lengths: list[int],
    factors: Sequence[Factors | None],
    rows: Tensor | None = None,
) -> Tensor:
    """Return the layer's output, differentiable in x and the factors.

    Args:
        x: (T, H), contiguous, of a dtype in `fused.dtypes`.
        layer: the frozen weights.
        lengths: segment lengths; they sum to T.
        factors: A and B of q, k, v, the output of attention, up and down.
        rows: (n,) rows of the output to compute, (n, H); None: all, (T, H).
    """
    dropouts = _drawn(x, layer.shares)
    if rows is None:
        return _apply(x, layer, lengths, dropouts, *flat(factors))
    return _apply_read(x, layer, lengths, rows, dropouts, *flat(factors))


def _drawn(x: Tensor, shares: Shares) -> tuple[Dropout, Dropout, Dropout]:
    """Return the dropouts of one run of a layer, their seeds drawn from PyTorch's generator."""
    chosen = shares.weights, shares.attention, shares.mlp
    # Tensors without numbers, with which memory is planned, cannot be drawn from.
    if not any(chosen) or isinstance(x, FakeTensor):
        seeds = [0, 0, 0]
    else:
        seeds = [int(seed) for seed in torch.randint(2**62, (3,))]
    one, two, three = (Dropout(*both) for both in zip(chosen, seeds, strict=True))
    return one, two, three
