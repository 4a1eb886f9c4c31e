"""The training loss: cross-entropy over the trained positions only, without a full logit matrix.

With hidden states h (N, H) of the N trained positions, output weights W (V, H) and targets y,

    loss = Σₙ logsumexp(W hₙ) − (W hₙ)[yₙ]          ∂loss/∂hₙ = (softmax(W hₙ) − e_{yₙ}) W

Both are computed in the forward pass, a chunk of positions at a time, so that never more than
one chunk of logits exists; the idea is Liger's (Hsu et al. 2024, section 3.2). Positions whose
prediction is not trained never reach the output matrix.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F

# Positions a chunk: large enough for full matrix speed, small enough that logits of a
# 150,000-word vocabulary stay under 80 MB in float32.
CHUNK = 128

# Chunks are filled up to a multiple of this, for the same reason as rows: see packing.ROW_MULTIPLE.
CHUNK_MULTIPLE = 32


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Sum of cross-entropies of `hidden @ weight.T` against `targets`."""

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        wants_hidden, wants_weight = ctx.needs_input_grad[:2]
        total = torch.zeros((), dtype=accumulator(hidden.dtype), device=hidden.device)
        grad_hidden = torch.empty_like(hidden) if wants_hidden else None
        grad_weight = torch.zeros_like(weight) if wants_weight else None
        # Full fine-tuning keeps float32 weights and computes in the dtype of `hidden`.
        matrix = weight.to(hidden.dtype)
        for start in range(0, hidden.shape[0], CHUNK):
            target = targets[start : start + CHUNK]
            count = len(target)
            chunk = F.pad(hidden[start : start + count], (0, 0, 0, -count % CHUNK_MULTIPLE))
            logits = (chunk @ matrix.t()).to(total.dtype)
            log_norm = logits.logsumexp(dim=1)
            picked = logits[:count].gather(1, target[:, None]).squeeze(1)
            total += (log_norm[:count] - picked).sum()
            if grad_hidden is None and grad_weight is None:
                continue
            probabilities = logits.sub_(log_norm[:, None]).exp_()
            probabilities[torch.arange(count, device=target.device), target] -= 1
            probabilities[count:] = 0
            gradient = probabilities.to(hidden.dtype)
            if grad_hidden is not None:
                grad_hidden[start : start + count] = (gradient @ matrix)[:count]
            if grad_weight is not None:
                grad_weight += (gradient.t() @ chunk).to(grad_weight.dtype)
        ctx.gradients = (grad_hidden, grad_weight)
        return total

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        scale = upstream[0]
        gradients = cast("tuple[torch.Tensor | None, torch.Tensor | None]", ctx.gradients)
        return (*(None if g is None else g * scale.to(g.dtype) for g in gradients), None)


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """Return what logits of `dtype` are summed in: float32, or float64 for float64."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def cross_entropy_sum(
    hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    """Return Σ cross-entropy in nats, differentiable in `hidden` and `weight`.

    Args:
        hidden: (N, H), last hidden states of the trained positions.
        weight: (V, H), the output matrix.
        targets: (N,) int64, the token each position must predict.

    Returns:
        A scalar, float32 (float64 for float64 input).
    """
    apply = cast("Callable[..., torch.Tensor]", _ChunkedCrossEntropy.apply)  # pyright: ignore[reportUnknownMemberType]
    return apply(hidden, weight, targets)


def plain_head(model: Any) -> torch.Tensor | None:
    """Return the output matrix, (V, H), if logits are simply hidden @ Wᵀ, else None."""
    head = model.get_output_embeddings()
    config = model.config
    shaped = any(
        getattr(config, name, None) not in (None, 1, 1.0)
        for name in ("final_logit_softcapping", "logits_scaling", "logit_scale")
    )
    if shaped or type(head) is not torch.nn.Linear or "bias" in dict(head.named_parameters()):
        return None
    return head.weight


def completion_loss(
    model: Any,
    input_ids: torch.Tensor,
    targets: torch.Tensor,
    **inputs: Any,
) -> torch.Tensor:
    """Return the summed cross-entropy of a batch over its trained positions, in nats.

    Args:
        model: a transformers causal language model.
        input_ids: (B, T) int64.
        targets: (B, T) int64; targets[b, t] is the token that position t must predict, or -100.
        inputs: what else the model's forward pass takes: position_ids, segment_lengths, ...

    Returns:
        A scalar to be divided by the number of trained tokens of the whole optimiser step:
        a mean of means would weigh short answers more under gradient accumulation.
    """
    trained = targets.flatten() != -100
    wanted = targets.flatten()[trained]
    weight = plain_head(model)
    if weight is None:
        # Models that scale or cap their logits do so themselves.
        positions = trained.view_as(targets).any(dim=0).nonzero().flatten()
        output = model(input_ids=input_ids, logits_to_keep=positions, use_cache=False, **inputs)
        kept = targets[:, positions]
        logits = cast("torch.Tensor", output.logits).float()
        return F.cross_entropy(logits.flatten(0, 1), kept.flatten(), reduction="sum")
    output = model.base_model(input_ids=input_ids, use_cache=False, **inputs)
    hidden = cast("torch.Tensor", output.last_hidden_state)
    return cross_entropy_sum(hidden.flatten(0, 1)[trained], weight, wanted)
