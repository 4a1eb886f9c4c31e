"""Divergences between a teacher's and a student's distributions, chunk by chunk.

With the teacher's logits z^t, the student's z^s, p = softmax(z^t / T) and q = softmax(z^s / T),

    forward KL   D = Σ p (log p − log q)                ∂D/∂z^s = (q − p) / T
    reverse KL   D = Σ q (log q − log p)                ∂D/∂z^s = q (g − Σ q g) / T, g = log q/p
    JSD (β)      D = β KL(p ‖ m) + (1 − β) KL(q ‖ m)    the same with g = (1 − β) log q/m,
                 m = β p + (1 − β) q                    0 < β < 1

(generalised Jensen-Shannon: Agarwal et al. 2024, "On-Policy Distillation of Language Models",
section 3). The loss of a position is

    (1 − w) T² D + w · cross-entropy of its label at T = 1

T² keeps the size of the gradient as T grows (Hinton et al. 2015, section 2.1). As in
`cross_entropy.py`, value and gradient of a chunk of positions are computed together in the forward
pass, so no more than one chunk of either's logits exists.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from etude.tuning.objectives.cross_entropy import CHUNK, CHUNK_MULTIPLE, GPU_CHUNK, accumulator

Divergence = Literal["forward_kl", "reverse_kl", "jsd"]


@dataclass(frozen=True)
class Mixture:
    """The loss of a position: a divergence from the teacher, mixed with the label."""

    divergence: Divergence = "forward_kl"
    temperature: float = 1.0
    """T."""
    beta: float = 0.5
    """β of the Jensen-Shannon divergence."""
    label_weight: float = 0.0
    """w."""


def mixture_rows(
    student: Tensor, teacher: Tensor, targets: Tensor | None, mixture: Mixture
) -> tuple[Tensor, Tensor, Tensor]:
    """Return loss, divergence and the loss's gradient in the student's logits, row by row.

    Args:
        student: (n, V), in the accumulator's dtype.
        teacher: (n, V), likewise.
        targets: (n,) int64; not used where the label's weight is 0.
        mixture: of divergence and label.

    Returns:
        (n,) loss, (n,) divergence at temperature T without T², (n, V) gradient of the loss.
    """
    T, w = mixture.temperature, mixture.label_weight
    log_q, log_p = (F.log_softmax(z / T, dim=-1) for z in (student, teacher))
    q = log_q.exp()
    if mixture.divergence == "forward_kl":
        p = log_p.exp()
        found = (p * (log_p - log_q)).sum(-1)
        gradient = q - p
    else:
        if mixture.divergence == "reverse_kl":
            g = log_q - log_p
            found = (q * g).sum(-1)
        else:
            beta = mixture.beta
            log_m = torch.logaddexp(log_p + math.log(beta), log_q + math.log1p(-beta))
            g = (1 - beta) * (log_q - log_m)
            found = beta * (log_p.exp() * (log_p - log_m)).sum(-1) + (q * g).sum(-1)
        gradient = q * (g - (q * g).sum(-1, keepdim=True))
    # T² of the loss, 1/T of the logits' scale.
    loss, gradient = (1 - w) * T**2 * found, (1 - w) * T * gradient
    if w > 0:
        assert targets is not None
        log_s = F.log_softmax(student, dim=-1)
        rows = torch.arange(len(targets), device=targets.device)
        loss = loss - w * log_s[rows, targets]
        own = log_s.exp()
        own[rows, targets] -= 1
        gradient = gradient + w * own
    return loss, found, gradient


class _ChunkedMixture(torch.autograd.Function):
    """Σ loss and Σ divergence over positions, from hidden states and output matrices."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        teacher_hidden: Tensor,
        teacher_weight: Tensor,
        targets: Tensor,
        mixture: Mixture,
    ) -> tuple[Tensor, Tensor]:
        wants_hidden, wants_weight = ctx.needs_input_grad[:2]
        dtype = accumulator(hidden.dtype)
        total = torch.zeros((), dtype=dtype, device=hidden.device)
        apart = torch.zeros((), dtype=dtype, device=hidden.device)
        grad_hidden = torch.empty_like(hidden) if wants_hidden else None
        grad_weight = torch.zeros_like(weight) if wants_weight else None
        matrix = weight.to(hidden.dtype)
        teacher_matrix = teacher_weight.to(teacher_hidden.dtype)
        # Rows beyond the smaller matrix are of no token: padding to a round number.
        words = min(len(matrix), len(teacher_matrix))
        step = GPU_CHUNK if hidden.device.type == "cuda" else CHUNK
        for start in range(0, hidden.shape[0], step):
            target = targets[start : start + step]
            count = len(target)
            chunk = _filled(hidden[start : start + step])
            logits = (chunk @ matrix[:words].t())[:count].to(dtype)
            teacher = _filled(teacher_hidden[start : start + step])
            teacher_logits = (teacher @ teacher_matrix[:words].t())[:count].to(dtype)
            loss, found, gradient = mixture_rows(logits, teacher_logits, target, mixture)
            total += loss.sum()
            apart += found.sum()
            slope = gradient.to(hidden.dtype)
            if grad_hidden is not None:
                grad_hidden[start : start + count] = slope @ matrix[:words]
            if grad_weight is not None:
                grad_weight[:words] += (slope.t() @ chunk[:count]).to(grad_weight.dtype)
        ctx.gradients = (grad_hidden, grad_weight)
        ctx.mark_non_differentiable(apart)
        return total, apart

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        scale = upstream[0]
        gradients = cast("tuple[Tensor | None, Tensor | None]", ctx.gradients)
        own = (None if g is None else g * scale.to(g.dtype) for g in gradients)
        return (*own, None, None, None, None)


def mixture_sum(
    hidden: Tensor,
    weight: Tensor,
    teacher_hidden: Tensor,
    teacher_weight: Tensor,
    targets: Tensor,
    mixture: Mixture,
) -> tuple[Tensor, Tensor]:
    """Return Σ loss, differentiable in `hidden` and `weight`, and Σ divergence.

    Args:
        hidden: (N, H), the student's last hidden states.
        weight: (V, H), its output matrix.
        teacher_hidden: (N, H'), the teacher's.
        teacher_weight: (V', H'); words are compared up to the smaller of V and V'.
        targets: (N,) int64, labels.
        mixture: of divergence and label.

    Returns:
        Two scalars, float32 (float64 for float64 input).
    """
    apply = cast("Callable[..., tuple[Tensor, Tensor]]", _ChunkedMixture.apply)  # pyright: ignore[reportUnknownMemberType]
    return apply(hidden, weight, teacher_hidden, teacher_weight, targets, mixture)


class _RowMixture(torch.autograd.Function):
    """Loss of each row of logits that exist: a classifier's."""

    @staticmethod
    def forward(
        ctx: Any, student: Tensor, teacher: Tensor, targets: Tensor, mixture: Mixture
    ) -> tuple[Tensor, Tensor]:
        loss, found, gradient = mixture_rows(student, teacher, targets, mixture)
        ctx.gradient = gradient
        ctx.mark_non_differentiable(found)
        return loss, found

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        return cast("Tensor", ctx.gradient) * upstream[0][:, None], None, None, None


def mixture_of_logits(
    student: Tensor, teacher: Tensor, targets: Tensor, mixture: Mixture
) -> tuple[Tensor, Tensor]:
    """Return the loss of each row, differentiable in `student`, and its divergence.

    Args:
        student: (n, C) logits.
        teacher: (n, C).
        targets: (n,) int64.
        mixture: of divergence and label.
    """
    apply = cast("Callable[..., tuple[Tensor, Tensor]]", _RowMixture.apply)  # pyright: ignore[reportUnknownMemberType]
    return apply(student, teacher, targets, mixture)


def _filled(rows: Tensor) -> Tensor:
    return F.pad(rows, (0, 0, 0, -len(rows) % CHUNK_MULTIPLE))
