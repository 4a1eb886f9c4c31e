"""Divergences from stored scores: of a teacher's k likeliest words, or of a sample of its words.

`top_k`. The k words that are stored, and all others as one, make distributions P and Q over k + 1
outcomes, Q_rest = Σ q over the others. D(P, Q) is at most D(p, q), since outcomes are merged, and
equal to it at k = V. With D's derivative in Q's logarithms, and b(v) the outcome of word v,

    forward KL         ∂D/∂z_v = (q_v − q_v P_b / Q_b) / T
    reverse KL, JSD    ∂D/∂z_v = q_v (g_b − Σ Q g) / T       g as in `divergence.py`

so a word of the rest gets its part of the rest's mass as the student divides it.

`sampled`. n words drawn from p, with shares s_v, are an unbiased estimate of p, and so of the
forward KL and of its gradient, which are linear in p (Anshumann et al. 2025, "Sparse Logit
Sampling", arXiv 2503.16870):

    D ≈ Σ s (log p − log q)        ∂D/∂z_v ≈ (q_v − s_v) / T
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from etude.tuning.data.score_store import Scores
from etude.tuning.objectives.divergence import Mixture, with_label


def stored_rows(
    student: Tensor, scores: Scores, targets: Tensor | None, mixture: Mixture
) -> tuple[Tensor, Tensor, Tensor]:
    """Return loss, divergence and the loss's gradient in the student's logits, row by row.

    Args:
        student: (n, V) logits, in the accumulator's dtype.
        scores: of n positions, at the mixture's temperature.
        targets: (n,) int64; not used where the label's weight is 0.
        mixture: of divergence and label.

    Returns:
        As `divergence.mixture_rows`.
    """
    log_q = F.log_softmax(student / mixture.temperature, dim=-1)
    words = scores.words
    log_p = scores.log_p.to(log_q)
    if scores.shares is not None:
        shares = scores.shares.to(log_q)
        found = (shares * (log_p - log_q.gather(1, words))).sum(-1)
        gradient = log_q.exp_().scatter_add_(1, words, -shares)
        return with_label(student, found, gradient, targets, mixture)
    stored = log_q.gather(1, words)
    others = _log_sum_beside(log_q, words)
    log_Q = torch.cat([stored, others[:, None]], 1)
    log_P = torch.cat([log_p, scores.rest.to(log_q)[:, None]], 1)
    # Stored in 16 bits, they sum to 1 but for some thousandths.
    log_P = log_P - log_P.logsumexp(-1, keepdim=True)
    # From here on each matrix of n times V is used again for the next.
    if mixture.divergence == "forward_kl":
        found = _times(log_P.exp(), log_P - log_Q).sum(-1)
        # The rest has no words at k = V.
        shift = torch.where(others > -math.inf, log_P[:, -1] - others, -math.inf)
        gradient = log_q.exp()
        gradient.sub_(log_q.add_(shift[:, None]).exp_())
        gradient.scatter_(1, words, stored.exp() - log_P[:, :-1].exp())
    else:
        found, slope = _outcomes(log_P, log_Q, mixture)
        gradient = log_q.exp_().mul_(slope[:, -1:])
        gradient.scatter_(1, words, stored.exp() * slope[:, :-1])
    return with_label(student, found, gradient, targets, mixture)


def _log_sum_beside(log_q: Tensor, words: Tensor) -> Tensor:
    """Return the logarithm of the mass of all other words, (n,), however small it is."""
    others = log_q.scatter(1, words, -math.inf)
    largest = others.amax(1, keepdim=True)
    # There are none at k = V.
    largest = torch.where(largest > -math.inf, largest, 0.0)
    return others.sub_(largest).exp_().sum(1).log_() + largest.squeeze(1)


def _outcomes(log_P: Tensor, log_Q: Tensor, mixture: Mixture) -> tuple[Tensor, Tensor]:
    """Return D, (n,), and for each outcome g − Σ Q g, (n, k + 1); reverse KL or JSD."""
    Q = log_Q.exp()
    if mixture.divergence == "reverse_kl":
        g = log_Q - log_P
        found = _times(Q, g).sum(-1)
    else:
        beta = mixture.beta
        log_M = torch.logaddexp(log_P + math.log(beta), log_Q + math.log1p(-beta))
        g = (1 - beta) * (log_Q - log_M)
        found = (beta * _times(log_P.exp(), log_P - log_M) + _times(Q, g)).sum(-1)
    g = torch.where(Q > 0, g, 0.0)
    return found, g - (Q * g).sum(-1, keepdim=True)


def _times(mass: Tensor, value: Tensor) -> Tensor:
    """Return mass · value, 0 where there is no mass: the rest at k = V."""
    return torch.where(mass > 0, mass * value, 0.0)


class KnownScores:
    """Stored scores, as `divergence.Known`.

    Args:
        scores: of N positions, at the mixture's temperature.
        words: words that the teacher's distribution is over.
    """

    def __init__(self, scores: Scores, words: int) -> None:
        self.scores = scores
        self.words = words

    def rows(
        self, student: Tensor, place: slice, targets: Tensor, mixture: Mixture
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Compare with what is stored."""
        return stored_rows(student, self.scores[place], targets, mixture)


def likeliest(logits: Tensor, count: int, temperature: float) -> Scores:
    """Return the scores of the `count` likeliest words of each row of logits, (n, V)."""
    log_p = F.log_softmax(logits / temperature, dim=-1)
    values, words = log_p.topk(count, dim=-1)
    rest = log_p.scatter(1, words, -math.inf).logsumexp(-1)
    return Scores(words, values, rest)


def sampled(logits: Tensor, count: int, temperature: float, draws: Tensor) -> Scores:
    """Return scores of words drawn from each row of logits, (n, V), with their shares.

    Args:
        logits: (n, V).
        count: draws of a row.
        temperature: of the distribution that is drawn from.
        draws: (n, count) uniform numbers in [0, 1).
    """
    log_p = F.log_softmax(logits.double() / temperature, dim=-1)
    sums = log_p.exp().cumsum(-1)
    drawn = torch.searchsorted(sums, (draws.double() * sums[:, -1:]).contiguous(), right=True)
    drawn = drawn.clamp_(max=logits.shape[1] - 1).sort(dim=-1).values
    first = torch.ones_like(drawn, dtype=torch.bool)
    first[:, 1:] = drawn[:, 1:] != drawn[:, :-1]
    # Each word in the column of its first draw; the columns of its other draws count nothing.
    slot = first.long().cumsum(-1) - 1
    shares = torch.zeros(drawn.shape, dtype=log_p.dtype, device=drawn.device)
    shares.scatter_add_(1, slot, torch.full_like(shares, 1 / count))
    words = torch.zeros_like(drawn).scatter_(1, slot, drawn)
    values = log_p.gather(1, words)
    there = shares > 0
    covered = torch.where(there, values.exp(), 0.0).sum(-1)
    return Scores(words, values, torch.log1p(-covered.clamp(max=1.0)), shares)
