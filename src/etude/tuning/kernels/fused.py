"""What a layer does between its matrix products, each in one pass over memory.

Each function is defined by its namesake in `fused_reference`, in plain PyTorch; here it is done by
the C++ kernels on float32 or bfloat16 tensors of the processor, with float32 arithmetic, and on a
GPU as `gpu` and `gpu_attention` choose. Rows are (T, width): the tokens of a packed row, or of
several rows laid end to end. The C++ kernels check sizes, dtypes and layouts themselves and raise
ValueError (`native.call`) before they touch anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from etude.tuning.kernels import gpu, gpu_attention, native, triton
from etude.tuning.kernels.dropout import NO_DROPOUT, Dropout
from etude.tuning.kernels.heads import Heads
from etude.tuning.kernels.native import call

DTYPES = (torch.bfloat16, torch.float32)
"""Dtypes that there are kernels for on the processor."""

GPU_DTYPES = (*DTYPES, torch.float16)
"""Those of a GPU."""

HEAD_MULTIPLE = 8
"""Attention takes heads of a multiple of this."""

_TILE_MULTIPLE = 16
"""Heads are filled up to a multiple of this inside of the C++ kernel."""


def has_kernels(x: Tensor) -> bool:
    """Return whether there are C++ kernels for a tensor: its dtype, its device, and a compiler."""
    return x.dtype in DTYPES and x.device.type == "cpu" and native.status().ready


def obstacle(device: torch.device) -> str | None:
    """Return why nothing is fused on a device, for people; None: it is."""
    if device.type == "cpu":
        ready = native.status().ready or triton.interpreting()
        return None if ready else native.status().reason
    return None if device.type == "cuda" else f"there are no kernels for {device.type}"


def dtypes(device: torch.device) -> tuple[torch.dtype, ...]:
    """Return the dtypes that the functions of this module take on a device."""
    return DTYPES if _on_processor(device) else GPU_DTYPES


def fusable(x: Tensor) -> bool:
    """Return whether the functions of this module take a tensor: its device and its dtype."""
    return x.dtype in dtypes(x.device) and obstacle(x.device) is None


def how(device: torch.device) -> str:
    """Say in words what does the work on a device where there is no obstacle."""
    if _on_processor(device):
        return "kernels compiled for this processor"
    status = triton.status()
    return f"kernels by {status.reason}" if status.ready else f"plain PyTorch: {status.reason}"


def _on_processor(device: torch.device) -> bool:
    return device.type == "cpu" and not triton.interpreting()


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Return weight ∘ x / rms(x), (T, H), and 1 / rms(x), (T,) float32."""
    if not _on_processor(x.device):
        return gpu.rowwise(x).rms_norm(x, weight, eps)
    y, rstd = torch.empty_like(x), torch.empty(len(x))
    call("rms_norm", x.dtype, x, weight, y, rstd, len(x), x.shape[1], float(eps))
    return y, rstd


def rms_norm_backward(
    gradient: Tensor, x: Tensor, weight: Tensor, rstd: Tensor, residual: Tensor | None
) -> Tensor:
    """Return the gradient to x, (T, H), plus `residual`; the weight is frozen."""
    if not _on_processor(x.device):
        return gpu.rowwise(x).rms_norm_backward(gradient, x, weight, rstd, residual)
    dx = torch.empty_like(x)
    call("rms_norm_backward", x.dtype, gradient, x, weight, rstd, residual, dx, len(x), x.shape[1])
    return dx


def rotate(
    x: Tensor, cosine: Tensor, sine: Tensor, heads: int, *, backwards: bool = False
) -> Tensor:
    """Turn each head of x, (T, heads · width), by its row's angles, in place; return x.

    Args:
        x: rows may have a step between them.
        cosine: (T, width) float32.
        sine: likewise.
        heads: of a row.
        backwards: apply the transposed rotation: the gradient of the first.
    """
    if not _on_processor(x.device):
        return gpu.rowwise(x).rotate(x, cosine, sine, heads, backwards=backwards)
    width = x.shape[1] // heads
    call("rotate", x.dtype, x, x.stride(0), cosine, sine, len(x), heads, width, bool(backwards))
    return x


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """Return silu(gate) ∘ up."""
    if not _on_processor(gate.device):
        return gpu.rowwise(gate).swiglu(gate, up)
    y = torch.empty_like(gate)
    call("swiglu", gate.dtype, gate, up, y, gate.numel())
    return y


def swiglu_backward(gradient: Tensor, gate: Tensor, up: Tensor) -> Tensor:
    """Turn `gate` and `up` into their gradients, in place; return silu(gate) ∘ up anew."""
    if not _on_processor(gate.device):
        return gpu.rowwise(gate).swiglu_backward(gradient, gate, up)
    y = torch.empty_like(gate)
    call("swiglu_backward", gate.dtype, gradient, gate, up, y, gate.numel())
    return y


def add_norm(
    y: Tensor, x: Tensor, weight: Tensor, bias: Tensor, eps: float, dropout: Dropout = NO_DROPOUT
) -> tuple[Tensor, Tensor, Tensor]:
    """Turn y into s = x + dropout(y), in place; return its layer norm.

    Args:
        y: (T, H), contiguous, as x.
        x: (T, H).
        weight: (H,).
        bias: (H,).
        eps: added to the variance.
        dropout: of y.

    Returns:
        weight ∘ (s − mean) / deviation + bias, (T, H); the mean and 1 / the deviation of each row
        of s, (T,) float32.
    """
    if not _on_processor(y.device):
        return gpu.normwise(y).add_norm(y, x, weight, bias, eps, dropout)
    z, mean, rstd = torch.empty_like(y), torch.empty(len(y)), torch.empty(len(y))
    call(
        "add_norm", y.dtype, y, x, weight, bias, z, mean, rstd, len(y), y.shape[1], float(eps),
        *_drawn(dropout),
    )  # fmt: skip
    return z, mean, rstd


def layer_norm(s: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, rstd: Tensor) -> Tensor:
    """Return what `add_norm` did, from s and its rows' means and deviations."""
    if not _on_processor(s.device):
        return gpu.normwise(s).layer_norm(s, weight, bias, mean, rstd)
    z = torch.empty_like(s)
    call("layer_norm", s.dtype, s, weight, bias, mean, rstd, z, len(s), s.shape[1])
    return z


def add_norm_backward(
    gradient: Tensor,
    also: Tensor | None,
    s: Tensor,
    weight: Tensor,
    mean: Tensor,
    rstd: Tensor,
    dropout: Dropout = NO_DROPOUT,
) -> tuple[Tensor, Tensor]:
    """Return the gradients to x and y of `add_norm`; without dropout they are one tensor.

    The gradient to its result is `gradient` + `also`; weight and bias are frozen.
    """
    if not _on_processor(s.device):
        return gpu.normwise(s).add_norm_backward(gradient, also, s, weight, mean, rstd, dropout)
    ds = torch.empty_like(s)
    dy = torch.empty_like(s) if dropout.on else None
    call(
        "add_norm_backward", s.dtype, gradient, also, s, weight, mean, rstd, ds, dy, len(s),
        s.shape[1], *_drawn(dropout),
    )  # fmt: skip
    return ds, ds if dy is None else dy


def gelu(g: Tensor) -> Tensor:
    """Return g Φ(g), Φ the share of a normal distribution below g."""
    if not _on_processor(g.device):
        return gpu.normwise(g).gelu(g)
    y = torch.empty_like(g)
    call("gelu", g.dtype, g, y, g.numel())
    return y


def gelu_backward(gradient: Tensor, g: Tensor) -> Tensor:
    """Turn g into its gradient, in place; return g Φ(g) anew."""
    if not _on_processor(g.device):
        return gpu.normwise(g).gelu_backward(gradient, g)
    y = torch.empty_like(g)
    call("gelu_backward", g.dtype, gradient, g, y, g.numel())
    return y


def cross_entropy(logits: Tensor, targets: Tensor, *, gradient: bool) -> Tensor:
    """Return logsumexp − logit of the target, (N,) float32, of logits (N, V).

    With `gradient`, the logits become softmax − one-hot, in place.
    """
    if not _on_processor(logits.device):
        return gpu.cross_entropy(logits, targets, gradient=gradient)
    loss = torch.empty(len(logits))
    call(
        "cross_entropy", logits.dtype, logits, targets, loss, len(logits), logits.shape[1], gradient
    )
    return loss


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lengths: Sequence[int],
    heads: Heads,
    dropout: Dropout = NO_DROPOUT,
) -> tuple[Tensor, Tensor]:
    """Attend inside each segment, causally or in both directions.

    Args:
        q: (T, query heads · width); rows may have a step between them, as for k and v.
        k: (T, key heads · width).
        v: likewise.
        lengths: of the segments; they sum to T.
        heads: what attention is over.
        dropout: of the weights; row `head · T + t` of it belongs to token t of a query head, its
            columns to the keys of the segment.

    Returns:
        (T, query heads · width), and the log of each softmax's sum, (query heads, T) float32.
    """
    if not _on_processor(q.device):
        return gpu_attention.attention(q, k, v, lengths, heads, dropout)
    out = torch.empty(q.shape, dtype=q.dtype)
    log_norm = torch.empty(heads.query, len(q))
    starts = _starts(lengths)
    call(
        "attention", q.dtype, q, k, v, out, log_norm, starts, len(lengths), len(q),
        *_sizes(q, k, v, out, heads), *_drawn(dropout),
    )  # fmt: skip
    return out, log_norm


def attention_backward(
    gradient: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    log_norm: Tensor,
    lengths: Sequence[int],
    heads: Heads,
    dropout: Dropout = NO_DROPOUT,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients to q, k and v, each in the layout of its tensor."""
    if not _on_processor(q.device):
        return gpu_attention.attention_backward(
            gradient, q, k, v, out, log_norm, lengths, heads, dropout
        )
    dq, dk, dv = (torch.empty_strided(t.shape, t.stride(), dtype=t.dtype) for t in (q, k, v))
    padded = -(-heads.width // _TILE_MULTIPLE) * _TILE_MULTIPLE
    parts = torch.empty(2, heads.query, len(q), padded)
    starts = _starts(lengths)
    call(
        "attention_backward", q.dtype, q, k, v, out, gradient, log_norm, dq, dk, dv, parts, starts,
        len(lengths), len(q), *_sizes(q, k, v, out, heads), *_drawn(dropout),
    )  # fmt: skip
    return dq, dk, dv


def _starts(lengths: Sequence[int]) -> Tensor:
    return torch.tensor([0, *lengths]).cumsum(0)


def _sizes(q: Tensor, k: Tensor, v: Tensor, out: Tensor, heads: Heads) -> tuple[Any, ...]:
    steps = (t.stride(0) for t in (q, k, v, out))
    return (
        heads.query, heads.key, heads.width, *steps, float(heads.scale), heads.window or 0,
        heads.causal,
    )  # fmt: skip


def _drawn(dropout: Dropout) -> tuple[int, int, float]:
    return dropout.seed, dropout.threshold, float(dropout.factor)


THIN_ROWS = 16
"""Rows up to which a product costs the reading of its weight, and `thin_product` is the faster."""


def thin_product(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    add: Tensor | None = None,
    low: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Return x Wᵀ + bias + add + h b of few rows, (T, out), rounded once.

    Args:
        x: (T, in), each row contiguous; T best a multiple of 8.
        weight: (out, in), contiguous, in the dtype of x.
        bias: (out,), or None.
        add: (T, out), contiguous, or None.
        low: h, (T, r), each row contiguous, and b, (r, out), contiguous; or None.
    """
    y = torch.empty(len(x), len(weight), dtype=x.dtype)
    h, b = low or (x[:, :0], None)
    call(
        "thin_product", x.dtype, x, x.stride(0), weight, bias, add, h, h.stride(0), b, h.shape[1],
        y, len(x), x.shape[1], len(weight),
    )  # fmt: skip
    return y


def cached_attention(
    q: Tensor, keys: Tensor, values: Tensor, places: Tensor, counts: Tensor, heads: Heads
) -> Tensor:
    """Let one token of each of several answers attend to the keys that are kept of it.

    Args:
        q: (T, query heads · width), contiguous.
        keys: (answers, key heads, capacity, width), contiguous.
        values: likewise.
        places: (T,) int64, which answer a row belongs to.
        counts: (T,) int64, how many keys there are of it, the token's own included.
        heads: what attention is over.

    Returns:
        (T, query heads · width).
    """
    out = torch.empty_like(q)
    call(
        "cached_attention", q.dtype, q, keys, values, out, places, counts, len(q), len(keys),
        heads.query, heads.key, keys.shape[2], heads.width, float(heads.scale), heads.window or 0,
    )  # fmt: skip
    return out
