"""Attention inside the segments of a packed row, on a GPU, by PyTorch's own kernels.

Half-precision numbers go to FlashAttention's kernels for rows of several lengths (Dao 2023,
"FlashAttention-2"), that PyTorch ships: all segments at once, heads that share keys and windows
included, the log of each softmax's sum kept for the backward pass. They are called where
`torch.nn.attention.varlen` calls them, which hides that sum from a backward pass of one's own.
Everything else takes `scaled_dot_product_attention`, segment by segment, computed again in the
backward pass: slower, and right on every device. So does dropout of the weights, which is drawn
again in the backward pass (`dropout`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from etude.tuning.kernels.dropout import NO_DROPOUT, Dropout
from etude.tuning.kernels.heads import Heads

_aten: Any = torch.ops.aten

_FLASH_WIDTHS = range(8, 257, 8)
"""Of heads that FlashAttention's kernels take."""


def has_flash(q: Tensor, heads: Heads) -> bool:
    """Return whether FlashAttention's kernels take these heads: dtype, width and device."""
    return (
        q.device.type == "cuda"
        and q.dtype in (torch.bfloat16, torch.float16)
        and heads.width in _FLASH_WIDTHS
        and torch.version.hip is None
        and torch.backends.cuda.is_flash_attention_available()
        and torch.cuda.get_device_capability(q.device) >= (8, 0)
    )


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lengths: Sequence[int],
    heads: Heads,
    dropout: Dropout = NO_DROPOUT,
) -> tuple[Tensor, Tensor]:
    """Attend inside each segment; see `fused.attention`.

    Returns:
        (T, query heads · width), and the log of each softmax's sum, (query heads, T) float32, or
        nothing, (0,), where the backward pass computes it again.
    """
    if has_flash(q, heads) and not dropout.on:
        return flash_attention(q, k, v, lengths, heads)
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    start = 0
    for length in lengths:
        part = slice(start, start + length)
        out[part] = _segment(q[part], k[part], v[part], heads, dropout, (start, len(q)))
        start += length
    return out, torch.empty(0, device=q.device)


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
    """Return the gradients to q, k and v, contiguous; see `fused.attention_backward`."""
    if has_flash(q, heads) and not dropout.on:
        return flash_attention_backward(gradient, q, k, v, out, log_norm, lengths, heads)
    dq, dk, dv = (torch.empty(t.shape, dtype=t.dtype, device=t.device) for t in (q, k, v))
    start = 0
    for length in lengths:
        part = slice(start, start + length)
        leaves = [t[part].detach().requires_grad_() for t in (q, k, v)]
        with torch.enable_grad():
            again = _segment(leaves[0], leaves[1], leaves[2], heads, dropout, (start, len(q)))
        found = torch.autograd.grad(again, leaves, gradient[part])
        for whole, piece in zip((dq, dk, dv), found, strict=True):
            whole[part] = piece
        start += length
    return dq, dk, dv


def _segment(
    q: Tensor, k: Tensor, v: Tensor, heads: Heads, dropout: Dropout, place: tuple[int, int]
) -> Tensor:
    """Attend within one segment, (n, heads · width) in and out.

    Args:
        q: (n, query heads · width).
        k: (n, key heads · width).
        v: likewise.
        heads: what attention is over.
        dropout: of the weights.
        place: where the segment starts, and how many tokens the row has.
    """
    length = len(q)
    if dropout.on:
        return _with_dropout(q, k, v, heads, dropout, place)
    by_head = [t.view(len(t), -1, heads.width).transpose(0, 1)[None] for t in (q, k, v)]
    mask = None
    if heads.window is not None and length > heads.window:
        position = torch.arange(length, device=q.device)
        behind = position[:, None] - position
        mask = (behind >= 0) & (behind < heads.window)
    out = scaled_dot_product_attention(
        *by_head,
        attn_mask=mask,
        is_causal=mask is None and heads.causal,
        scale=heads.scale,
        enable_gqa=heads.query != heads.key,
    )
    return out[0].transpose(0, 1).flatten(1)


def _with_dropout(
    q: Tensor, k: Tensor, v: Tensor, heads: Heads, dropout: Dropout, place: tuple[int, int]
) -> Tensor:
    """Attend within one segment, its weights dropped out; see `_segment`."""
    length, group = len(q), heads.query // heads.key
    start, total = place
    by_head = [t.view(length, -1, heads.width).transpose(0, 1).float() for t in (q, k, v)]
    keys, values = (t.repeat_interleave(group, 0) for t in by_head[1:])
    scores = by_head[0] @ keys.transpose(1, 2) * heads.scale
    if heads.causal:
        position = torch.arange(length, device=q.device)
        behind = position[:, None] - position
        seen = (behind >= 0) & (behind < (heads.window or length))
        scores = scores.masked_fill(~seen, float("-inf"))
    factors = torch.stack(
        [
            dropout.factors(head * total + start, length, length, q.device)
            for head in range(heads.query)
        ]
    )
    out = scores.softmax(2) * factors @ values
    return out.transpose(0, 1).flatten(1).to(q.dtype)


@lru_cache(maxsize=16)
def _starts(lengths: tuple[int, ...], device: torch.device) -> Tensor:
    """Return where segments begin and the last one ends, int32; once for all layers of a row."""
    return torch.tensor([0, *lengths]).cumsum(0).to(device, torch.int32)


def _window(heads: Heads) -> dict[str, int]:
    """Return what lies before and after a query that sees a window; nothing for all before it."""
    if heads.window is None:
        return {}
    return {"window_size_left": heads.window - 1, "window_size_right": 0}


def flash_attention(
    q: Tensor, k: Tensor, v: Tensor, lengths: Sequence[int], heads: Heads
) -> tuple[Tensor, Tensor]:
    """Do as `attention` by FlashAttention's kernels, which `has_flash` must allow."""
    starts, longest = _starts(tuple(lengths), q.device), max(lengths)
    out, log_norm, *_ = _aten._flash_attention_forward(
        *(t.view(len(t), -1, heads.width) for t in (q, k, v)),
        starts, starts, longest, longest, 0.0, heads.causal, False, scale=heads.scale,
        **_window(heads),
    )  # fmt: skip
    return out.flatten(1), log_norm


def flash_attention_backward(
    gradient: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    log_norm: Tensor,
    lengths: Sequence[int],
    heads: Heads,
) -> tuple[Tensor, Tensor, Tensor]:
    """Do as `attention_backward` by FlashAttention's kernels."""
    starts, longest = _starts(tuple(lengths), q.device), max(lengths)
    # The state of random numbers for dropout, of which there is none.
    state = torch.zeros(2, dtype=torch.uint64, device=q.device)
    found = _aten._flash_attention_backward(
        *(t.view(len(t), -1, heads.width) for t in (gradient, q, k, v, out)),
        log_norm, starts, starts, longest, longest, 0.0, heads.causal, state, state,
        scale=heads.scale, **_window(heads),
    )  # fmt: skip
    dq, dk, dv = (t.contiguous().flatten(1) for t in found)
    return dq, dk, dv
