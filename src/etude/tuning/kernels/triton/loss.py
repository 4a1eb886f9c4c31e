# pyright: basic
"""Cross-entropy of rows of logits, z (N, V), which become their own gradient.

    loss = log Σ e^z − z[target]          z ← softmax(z) − one-hot(target)

A row is one program that goes over it twice: first for the largest logit and the sum of
exponentials, both carried along (Milakov & Gimelshein 2018, "Online normalizer calculation for
softmax"), then, if the gradient is wanted, to write it; the second time most of the row is still in
cache.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from etude.tuning.kernels.triton.arithmetic import rounded
from etude.tuning.kernels.triton.launching import launch, power, refuse_unfit

_PIECE = 4096
"""Logits of a row worked on at a time, 16 for each of 256 threads."""


@triton.jit
def _cross_entropy(logits, targets, loss, step, width, GRADIENT: tl.constexpr, PIECE: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    start = logits + row * step
    target = tl.load(targets + row)
    picked = tl.load(start + target).to(tl.float32)
    lane = tl.arange(0, PIECE)
    top = tl.full((), float("-inf"), tl.float32)
    total = tl.full((), 0.0, tl.float32)
    for first in range(0, width, PIECE):
        place = first + lane
        z = tl.load(start + place, mask=place < width, other=float("-inf")).to(tl.float32)
        above = tl.maximum(top, tl.max(z, 0))
        # A piece of -inf alone has no largest logit to take off.
        shift = tl.where(above == float("-inf"), 0.0, above)
        total = total * tl.exp(top - shift) + tl.sum(tl.exp(z - shift), 0)
        top = above
    # Both terms less the largest logit: top + log(total) would be rounded to its size.
    log_total = tl.log(total)
    tl.store(loss + row, log_total - (picked - top))
    if GRADIENT:
        for first in range(0, width, PIECE):
            place = first + lane
            inside = place < width
            z = tl.load(start + place, mask=inside, other=0.0).to(tl.float32)
            gradient = tl.exp((z - top) - log_total) - tl.where(place == target, 1.0, 0.0)
            tl.store(start + place, rounded(gradient, logits.dtype.element_ty), mask=inside)


def cross_entropy(logits: Tensor, targets: Tensor, *, gradient: bool) -> Tensor:
    """Return logsumexp − logit of the target, (N,) float32; see `fused.cross_entropy`.

    Args:
        logits: (N, V), contiguous; with `gradient` they become softmax − one-hot.
        targets: (N,) int64, 0 to V − 1: no other is looked for.
        gradient: whether to write it.

    Raises:
        TypeError, ValueError: a dtype without kernel; logits that are not contiguous.
    """
    refuse_unfit(logits=logits)
    rows, width = logits.shape
    loss = torch.empty(rows, dtype=torch.float32, device=logits.device)
    piece = min(_PIECE, power(width))
    launch(
        _cross_entropy, (rows,), logits, targets.contiguous(), loss, width, width,
        GRADIENT=gradient, PIECE=piece, num_warps=8 if piece == _PIECE else 4,
    )  # fmt: skip
    return loss
