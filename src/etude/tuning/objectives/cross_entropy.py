"""Chunked cross-entropy over the trained positions, without a full logit matrix.

With hidden states h (N, H) of the N trained positions, output weights W (V, H) and targets y,

    loss = Σₙ logsumexp(W hₙ) − (W hₙ)[yₙ]          ∂loss/∂hₙ = (softmax(W hₙ) − e_{yₙ}) W

where the largest logit of each row is subtracted first, for numerical stability. Both are computed
in the forward pass, one chunk of positions at a time, so that at most one chunk of logits exists;
the idea is Liger's (Hsu et al. 2024, section 3.2). Positions that are not trained are never
multiplied by the output matrix.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from etude.tuning.adapters.modules_to_save import ModuleToSave
from etude.tuning.adapters.trained_rows import TrainedRows
from etude.tuning.fusion.forward_probe import logits_are_plain
from etude.tuning.kernels.fused import cross_entropy, fusable
from etude.tuning.objectives.output_matrix import OutputMatrix

# Positions per chunk: large enough for full matrix speed, small enough that logits of a
# 150,000-word vocabulary stay under 80 MB, in float32 or, where they are turned into their gradient
# in place, in bfloat16.
CHUNK = 128
FUSED_CHUNK = 256

# On a GPU the output matrix, a gigabyte at 128,256 words by 4,096, is read anew for every chunk:
# 1,024 positions multiply for longer than that takes, and their bfloat16 logits are 260 MB.
GPU_CHUNK = 1024

# Chunks are filled up to a multiple of this, for the same reason as rows: see packing.ROW_MULTIPLE.
CHUNK_MULTIPLE = 32


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Sum of cross-entropies of `hidden @ weight.T` against `targets`."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        trained: Tensor | None = None,
        ids: Tensor | None = None,
    ) -> Tensor:
        wants_hidden, wants_weight = ctx.needs_input_grad[:2]
        wants_rows = trained is not None and ctx.needs_input_grad[3]
        total = torch.zeros((), dtype=accumulator(hidden.dtype), device=hidden.device)
        grad_hidden = torch.empty_like(hidden) if wants_hidden else None
        grad_weight = torch.zeros_like(weight) if wants_weight else None
        grad_rows = torch.zeros_like(trained) if wants_rows and trained is not None else None
        # Full fine-tuning has float32 weights and computes in the dtype of `hidden`.
        matrix = OutputMatrix(weight, trained, ids).to(hidden.dtype)
        fused = fusable(hidden)
        step = _chunk(hidden.device, fused=fused)
        for start in range(0, hidden.shape[0], step):
            target = targets[start : start + step]
            count = len(target)
            chunk = F.pad(hidden[start : start + count], (0, 0, 0, -count % CHUNK_MULTIPLE))
            logits = matrix.logits(chunk)
            rows = _fused_rows if fused else _plain_rows
            wanted = wants_hidden or wants_weight or wants_rows
            loss, gradient = rows(logits, target, gradient=wanted)
            total += loss
            if grad_weight is not None:
                grad_weight += (gradient.t() @ chunk).to(grad_weight.dtype)
            if grad_rows is not None:
                grad_rows += matrix.grad_rows(gradient, chunk).to(grad_rows.dtype)
            if grad_hidden is not None:
                grad_hidden[start : start + count] = matrix.grad_hidden(gradient)[:count]
        ctx.gradients = (grad_hidden, grad_weight, None, grad_rows, None)
        return total

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        scale = upstream[0]
        gradients = cast("tuple[Tensor | None, ...]", ctx.gradients)
        return tuple(None if g is None else g * scale.to(g.dtype) for g in gradients)


def _chunk(device: torch.device, *, fused: bool) -> int:
    """Return the number of positions per chunk."""
    if device.type == "cuda":
        return GPU_CHUNK
    return FUSED_CHUNK if fused else CHUNK


def _plain_rows(logits: Tensor, target: Tensor, *, gradient: bool) -> tuple[Tensor, Tensor]:
    """Return Σ logsumexp − logit of the target over the rows that have one, and softmax − one-hot.

    Args:
        logits: (n, V), n at least the number of targets; further rows are padding.
        target: (N,) int64.
        gradient: False omits the gradient; the logits are overwritten in any case.
    """
    count, dtype = len(target), logits.dtype
    logits = logits.to(accumulator(dtype))
    # A loss is small beside logits of 10⁴, whose logsumexp would be rounded to their size.
    logits.sub_(logits.amax(dim=1, keepdim=True))
    log_norm = logits.logsumexp(dim=1)
    picked = logits[:count].gather(1, target[:, None]).squeeze(1)
    loss = (log_norm[:count] - picked).sum()
    if gradient:
        logits.sub_(log_norm[:, None]).exp_()
        logits[torch.arange(count, device=target.device), target] -= 1
        logits[count:] = 0
    return loss, logits.to(dtype)


def _fused_rows(logits: Tensor, target: Tensor, *, gradient: bool) -> tuple[Tensor, Tensor]:
    """Like `_plain_rows`, fused: softmax − one-hot overwrites the logits."""
    count = len(target)
    loss = cross_entropy(logits[:count], target, gradient=gradient)
    logits[count:] = 0
    return loss.sum(), logits


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """Return the accumulation dtype for logits of `dtype`: float32, or float64 for float64."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def cross_entropy_sum(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    rows: Tensor | None = None,
    ids: Tensor | None = None,
) -> Tensor:
    """Return Σ cross-entropy in nats, differentiable in `hidden`, and `weight` or `rows`.

    Args:
        hidden: (N, H), last hidden states of the trained positions.
        weight: (V, H), the output matrix.
        targets: (N,) int64, the token each position must predict.
        rows: (k, H), in the place of some rows of `weight`, or None; `weight` is then frozen.
        ids: (k,) int64, the numbers of these rows.

    Returns:
        A scalar, float32 (float64 for float64 input).
    """
    apply = cast("Callable[..., Tensor]", _ChunkedCrossEntropy.apply)  # pyright: ignore[reportUnknownMemberType]
    return apply(hidden, weight, targets, rows, ids)


def plain_head(model: Any) -> OutputMatrix | None:
    """Return the output matrix, (V, H), if logits are simply hidden @ Wᵀ, else None.

    They are not if the head is wrapped (adapters, `modules_to_save`) or has forward hooks, or if
    the model scales or caps them; the loss then uses the model's own logits. A head of which some
    rows are trained is plain.
    """
    head = model.get_output_embeddings()
    trained = None
    if isinstance(head, ModuleToSave):
        trained = head.computing_copy()
        if trained is not None and not isinstance(trained, TrainedRows):
            return None
        head = head.base
    inner: dict[str, Any] = vars(head)
    if type(head) is not torch.nn.Linear or inner["_forward_hooks"] or inner["_forward_pre_hooks"]:
        return None
    if "bias" in dict(head.named_parameters()) or not logits_are_plain(model):
        return None
    if trained is None:
        return OutputMatrix(head.weight)
    return OutputMatrix(head.weight, trained.trainable_tokens_delta, trained.ids)


def logits_at(model: Any, positions: Tensor, **inputs: Any) -> Tensor:
    """Return the model's own logits at some positions of each row, (B, positions, V).

    Args:
        model: a transformers causal language model.
        positions: (P,) int64.
        inputs: arguments of the model's forward pass.
    """
    takes = "logits_to_keep" in inspect.signature(model.forward).parameters
    options = {"logits_to_keep": positions} if takes else {}
    logits = cast("Tensor", model(use_cache=False, **options, **inputs).logits)
    return logits if takes else logits[:, positions]


def completion_loss(
    model: Any,
    input_ids: Tensor,
    targets: Tensor,
    **inputs: Any,
) -> Tensor:
    """Return the summed cross-entropy of a batch over its trained positions, in nats.

    Args:
        model: a transformers causal language model.
        input_ids: (B, T) int64.
        targets: (B, T) int64; targets[b, t] is the token that position t must predict, or -100.
        inputs: further arguments of the model's forward pass: position_ids, segment_lengths, ...

    Returns:
        A scalar to be divided by the number of trained tokens of the whole optimiser step:
        a mean of means would weigh short answers more under gradient accumulation.
    """
    trained = targets.flatten() != -100
    wanted = targets.flatten()[trained]
    matrix = plain_head(model)
    if matrix is None:
        # Models that scale or cap their logits do so themselves.
        positions = trained.view_as(targets).any(dim=0).nonzero().flatten()
        kept = targets[:, positions]
        logits = logits_at(model, positions, input_ids=input_ids, **inputs).float()
        return F.cross_entropy(logits.flatten(0, 1), kept.flatten(), reduction="sum")
    output = model.base_model(input_ids=input_ids, use_cache=False, **inputs)
    hidden = cast("Tensor", output.last_hidden_state)
    return cross_entropy_sum(
        hidden.flatten(0, 1)[trained], matrix.weight, wanted, matrix.rows, matrix.ids
    )
