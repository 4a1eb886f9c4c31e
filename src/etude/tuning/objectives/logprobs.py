"""Chunked log-probabilities of the trained positions, without a full logit matrix.

With hidden states h (N, H) of the N trained positions, output weights W (V, H) and targets y,

    ℓₙ = (W hₙ)[yₙ] − logsumexp(W hₙ)        ∂ℓₙ/∂hₙ = (e_{yₙ} − softmax(W hₙ)) W

one chunk of positions at a time, so that at most one chunk of logits exists. Unlike in
`cross_entropy.py`, the factor of ℓₙ in the loss is known in the backward pass only. With frozen
weights ∂ℓₙ/∂hₙ is one vector per position, which is stored and scaled then. With trained weights
the chunk's logits are recomputed.

log π(y|x) of an answer is the sum of its ℓₙ.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F

from etude.tuning.data.batch import Batch
from etude.tuning.objectives.cross_entropy import (
    CHUNK,
    CHUNK_MULTIPLE,
    accumulator,
    logits_at,
    plain_head,
)
from etude.tuning.objectives.output_matrix import OutputMatrix


class _ChunkedLogProbs(torch.autograd.Function):
    """Log-probabilities of `targets` under softmax(hidden @ weight.T)."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        targets: torch.Tensor,
        trained: torch.Tensor | None = None,
        ids: torch.Tensor | None = None,
    ) -> torch.Tensor:
        ctx.wants_weight = ctx.needs_input_grad[1]
        ctx.wants_rows = trained is not None and ctx.needs_input_grad[3]
        ctx.computes_again = ctx.wants_weight or ctx.wants_rows
        keeps = ctx.needs_input_grad[0] and not ctx.computes_again
        found = torch.empty(len(targets), dtype=accumulator(hidden.dtype), device=hidden.device)
        slopes = torch.empty_like(hidden) if keeps else None
        matrix = OutputMatrix(weight, trained, ids).to(hidden.dtype)
        for start in range(0, len(targets), CHUNK):
            rows = slice(start, start + CHUNK)
            logits = _logits(hidden[rows], matrix, found.dtype)
            log_norm = logits.logsumexp(dim=1)
            count = len(targets[rows])
            picked = logits[:count].gather(1, targets[rows, None]).squeeze(1)
            found[rows] = picked - log_norm[:count]
            if slopes is not None:
                slope = _slope(logits, log_norm, targets[rows]).to(hidden.dtype)
                slopes[rows] = matrix.grad_hidden(slope)[:count]
        if ctx.computes_again:
            ctx.save_for_backward(hidden, weight, targets, trained, ids)
        else:
            ctx.save_for_backward(slopes)
        return found

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride] - one output
        ctx: Any, upstream: torch.Tensor
    ) -> tuple[torch.Tensor | None, ...]:
        if not ctx.computes_again:
            (slopes,) = cast("tuple[torch.Tensor]", ctx.saved_tensors)
            return slopes * upstream[:, None].to(slopes.dtype), None, None, None, None
        hidden, weight, targets, trained, ids = cast("tuple[torch.Tensor, ...]", ctx.saved_tensors)
        grad_hidden = torch.empty_like(hidden)
        grad_weight = torch.zeros_like(weight) if ctx.wants_weight else None
        grad_rows = torch.zeros_like(trained) if ctx.wants_rows else None
        matrix = OutputMatrix(weight, trained, ids).to(hidden.dtype)
        for start in range(0, len(targets), CHUNK):
            rows = slice(start, start + CHUNK)
            count = len(targets[rows])
            logits = _logits(hidden[rows], matrix, upstream.dtype)
            slope = _slope(logits, logits.logsumexp(dim=1), targets[rows])[:count]
            gradient = (slope * upstream[rows, None]).to(hidden.dtype)
            if grad_weight is not None:
                grad_weight += (gradient.t() @ hidden[rows]).to(grad_weight.dtype)
            if grad_rows is not None:
                grad_rows += matrix.grad_rows(gradient, hidden[rows]).to(grad_rows.dtype)
            grad_hidden[rows] = matrix.grad_hidden(gradient)
        return grad_hidden, grad_weight, None, grad_rows, None


def _logits(hidden: torch.Tensor, matrix: OutputMatrix, dtype: torch.dtype) -> torch.Tensor:
    """Return a chunk's logits minus the largest of each row, which changes no probability.

    The chunk is padded with rows of zeros; see `CHUNK_MULTIPLE`.
    """
    filled = F.pad(hidden, (0, 0, 0, -len(hidden) % CHUNK_MULTIPLE))
    logits = matrix.logits(filled).to(dtype)
    return logits.sub_(logits.amax(dim=1, keepdim=True))


def _slope(logits: torch.Tensor, log_norm: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return e_y − softmax(logits), in place of the logits; padding rows become zero."""
    slope = logits.sub_(log_norm[:, None]).exp_().neg_()
    slope[torch.arange(len(targets), device=targets.device), targets] += 1
    slope[len(targets) :] = 0
    return slope


def log_probs(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    trained: torch.Tensor | None = None,
    ids: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the log-probability of each target in nats, differentiable in all matrices.

    Args:
        hidden: (N, H), last hidden states of the trained positions.
        weight: (V, H), the output matrix.
        targets: (N,) int64.
        trained: (k, H), in the place of some rows of `weight`, or None.
        ids: (k,) int64, the numbers of these rows.

    Returns:
        (N,), float32 (float64 for float64 input).
    """
    apply = cast("Callable[..., torch.Tensor]", _ChunkedLogProbs.apply)  # pyright: ignore[reportUnknownMemberType]
    return apply(hidden, weight, targets, trained, ids)


def token_log_probs(
    model: Any, input_ids: torch.Tensor, targets: torch.Tensor, **inputs: Any
) -> torch.Tensor:
    """Return the log-probability of each trained token of a batch, row by row.

    Args:
        model: a transformers causal language model.
        input_ids: (B, T) int64.
        targets: (B, T) int64; targets[b, t] is the token that position t must predict, or -100.
        inputs: further arguments of the model's forward pass.

    Returns:
        (N,) float32 or float64, N the number of trained positions.
    """
    trained = targets.flatten() != -100
    wanted = targets.flatten()[trained]
    matrix = plain_head(model)
    if matrix is None:
        # Models that scale or cap their logits do so themselves.
        positions = trained.view_as(targets).any(dim=0).nonzero().flatten()
        logits = logits_at(model, positions, input_ids=input_ids, **inputs)
        kept = (targets[:, positions] != -100).flatten()
        logits = logits.to(accumulator(logits.dtype)).flatten(0, 1)[kept]
        return logits.log_softmax(dim=1).gather(1, wanted[:, None]).squeeze(1)
    output = model.base_model(input_ids=input_ids, use_cache=False, **inputs)
    hidden = cast("torch.Tensor", output.last_hidden_state)
    return log_probs(hidden.flatten(0, 1)[trained], matrix.weight, wanted, matrix.rows, matrix.ids)


def answer_log_probs(model: Any, batch: Batch) -> torch.Tensor:
    """Return log π(y|x) of each sample's trained tokens, (S,), in nats.

    Args:
        model: a transformers causal language model; within `packed_rows` where `batch` is packed.
        batch: S samples; their `rejected` is ignored.
    """
    tokens = token_log_probs(model, **batch.inputs(model.device))
    # In both layouts the trained positions of a sample are consecutive.
    counts = [sample.trained_tokens for sample in batch]
    parts = cast("tuple[torch.Tensor, ...]", tokens.split(counts))  # pyright: ignore[reportUnknownMemberType]
    return torch.stack([part.sum() for part in parts])


def choice_log_probs(model: Any, batch: Batch, choices: Sequence[int]) -> torch.Tensor:
    """Return the log-probabilities of some tokens against each other, (S, C), in nats.

    Args:
        model: a transformers causal language model; within `packed_rows` where `batch` is packed.
        batch: S samples, of which each has one trained token: the place where a choice stands.
        choices: C tokens.
    """
    inputs = batch.inputs(model.device)
    targets = inputs.pop("targets")
    trained = targets.flatten() != -100
    rows = torch.tensor(list(choices), device=model.device)
    weight = plain_head(model)
    if weight is None:
        positions = trained.view_as(targets).any(dim=0).nonzero().flatten()
        logits = logits_at(model, positions, **inputs)
        kept = (targets[:, positions] != -100).flatten()
        chosen = logits.flatten(0, 1)[kept][:, rows]
    else:
        output = model.base_model(use_cache=False, **inputs)
        hidden = cast("torch.Tensor", output.last_hidden_state)
        chosen = weight.to(hidden.dtype).logits(hidden.flatten(0, 1)[trained])[:, rows]
    return chosen.to(accumulator(chosen.dtype)).log_softmax(dim=1)
