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
from typing import Any, Literal, Protocol, cast

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
    T = mixture.temperature
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
    return with_label(student, found, gradient, targets, mixture)


def with_label(
    student: Tensor, found: Tensor, gradient: Tensor, targets: Tensor | None, mixture: Mixture
) -> tuple[Tensor, Tensor, Tensor]:
    """Return loss, divergence and the loss's gradient from those of the divergence alone.

    Args:
        student: (n, V) logits.
        found: (n,) divergence at temperature T.
        gradient: (n, V) of it, in the logits divided by T; overwritten.
        targets: (n,) int64; not used where the label's weight is 0.
        mixture: of divergence and label.
    """
    T, w = mixture.temperature, mixture.label_weight
    # T² of the loss, 1/T of the logits' scale.
    loss, gradient = (1 - w) * T**2 * found, gradient.mul_((1 - w) * T)
    if w > 0:
        assert targets is not None
        log_s = F.log_softmax(student, dim=-1)
        rows = torch.arange(len(targets), device=targets.device)
        loss = loss - w * log_s[rows, targets]
        own = log_s.exp_()
        own[rows, targets] -= 1
        gradient.add_(own, alpha=w)
    return loss, found, gradient


class Known(Protocol):
    """What is known of a teacher's distributions at N positions."""

    @property
    def words(self) -> int:
        """Words that they are over. The student's rows beyond are of no token: padding."""
        ...

    def rows(
        self, student: Tensor, place: slice, targets: Tensor, mixture: Mixture
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return loss, divergence and gradient as `mixture_rows`, of the positions of `place`.

        Args:
            student: (n, words) logits of these positions.
            place: which of the N.
            targets: (n,) int64.
            mixture: of divergence and label.
        """
        ...


class KnownStates:
    """A teacher's last hidden states and output matrix; its logits are made as they are wanted.

    Args:
        hidden: (N, H').
        weight: (V', H').
    """

    def __init__(self, hidden: Tensor, weight: Tensor) -> None:
        self.hidden = hidden
        self.matrix = weight.to(hidden.dtype)
        self.words = len(weight)

    def rows(
        self, student: Tensor, place: slice, targets: Tensor, mixture: Mixture
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Multiply, and compare."""
        return mixture_rows(
            student, self.logits(place, student.shape[-1]).to(student.dtype), targets, mixture
        )

    def logits(self, place: slice, words: int) -> Tensor:
        """Return the logits of some positions and the first words, (n, words)."""
        states = self.hidden[place]
        return (_filled(states) @ self.matrix[:words].t())[: len(states)]


class KnownLogits:
    """A teacher's logits, whole.

    Args:
        logits: (N, V').
    """

    def __init__(self, logits: Tensor) -> None:
        self.whole = logits
        self.words = logits.shape[-1]

    def rows(
        self, student: Tensor, place: slice, targets: Tensor, mixture: Mixture
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Compare."""
        return mixture_rows(
            student, self.logits(place, student.shape[-1]).to(student.dtype), targets, mixture
        )

    def logits(self, place: slice, words: int) -> Tensor:
        """Return the logits of some positions and the first words, (n, words)."""
        return self.whole[place, :words]


class _ChunkedMixture(torch.autograd.Function):
    """Σ loss and Σ divergence over positions, from hidden states and the output matrix."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, known: Known, targets: Tensor, mixture: Mixture
    ) -> tuple[Tensor, Tensor]:
        wants_hidden, wants_weight = ctx.needs_input_grad[:2]
        dtype = accumulator(hidden.dtype)
        total = torch.zeros((), dtype=dtype, device=hidden.device)
        apart = torch.zeros((), dtype=dtype, device=hidden.device)
        grad_hidden = torch.empty_like(hidden) if wants_hidden else None
        grad_weight = torch.zeros_like(weight) if wants_weight else None
        words = min(len(weight), known.words)
        matrix = weight[:words].to(hidden.dtype)
        step = GPU_CHUNK if hidden.device.type == "cuda" else CHUNK
        for start in range(0, hidden.shape[0], step):
            place = slice(start, start + step)
            target = targets[place]
            count = len(target)
            chunk = _filled(hidden[place])
            logits = (chunk @ matrix.t())[:count].to(dtype)
            loss, found, gradient = known.rows(logits, place, target, mixture)
            total += loss.sum()
            apart += found.sum()
            slope = gradient.to(hidden.dtype)
            if grad_hidden is not None:
                grad_hidden[start : start + count] = slope @ matrix
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
        return (*own, None, None, None)


def mixture_sum(
    hidden: Tensor, weight: Tensor, known: Known, targets: Tensor, mixture: Mixture
) -> tuple[Tensor, Tensor]:
    """Return Σ loss, differentiable in `hidden` and `weight`, and Σ divergence.

    Args:
        hidden: (N, H), the student's last hidden states.
        weight: (V, H), its output matrix.
        known: of the teacher's distributions at the same positions; words are compared up to the
            smaller of V and its own number.
        targets: (N,) int64, labels.
        mixture: of divergence and label.

    Returns:
        Two scalars, float32 (float64 for float64 input).
    """
    apply = cast("Callable[..., tuple[Tensor, Tensor]]", _ChunkedMixture.apply)  # pyright: ignore[reportUnknownMemberType]
    return apply(hidden, weight, known, targets, mixture)


class _RowMixture(torch.autograd.Function):
    """Loss of each row of logits that exist: a classifier's, a tagger's."""

    @staticmethod
    def forward(
        ctx: Any, student: Tensor, known: Known, targets: Tensor, mixture: Mixture
    ) -> tuple[Tensor, Tensor]:
        words = min(student.shape[-1], known.words)
        loss, found, gradient = known.rows(student[:, :words], slice(None), targets, mixture)
        ctx.gradient = F.pad(gradient, (0, student.shape[-1] - words))
        ctx.mark_non_differentiable(found)
        return loss, found

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        return cast("Tensor", ctx.gradient) * upstream[0][:, None], None, None, None


def mixture_of_logits(
    student: Tensor, known: Known, targets: Tensor, mixture: Mixture
) -> tuple[Tensor, Tensor]:
    """Return the loss of each row, differentiable in `student`, and its divergence.

    Args:
        student: (n, C) logits.
        known: of the teacher's distributions at these rows.
        targets: (n,) int64.
        mixture: of divergence and label.
    """
    apply = cast("Callable[..., tuple[Tensor, Tensor]]", _RowMixture.apply)  # pyright: ignore[reportUnknownMemberType]
    return apply(student, known, targets, mixture)


def _filled(rows: Tensor) -> Tensor:
    return F.pad(rows, (0, 0, 0, -len(rows) % CHUNK_MULTIPLE))
