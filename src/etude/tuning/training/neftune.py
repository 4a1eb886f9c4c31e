"""NEFTune: uniform noise on the input embeddings while training (Jain et al. 2023).

    x ← x + ε,   ε uniform in ±α / √(L d)

with L the tokens of the sample and d the width of an embedding. It is TRL's and transformers'
formula for a sample alone in its row. In a packed or padded row they take the row's length for L,
so that a sample's noise depends on its neighbours; here L is the sample's own length in any layout.

Evaluations, generation and passes without gradients have no noise. The noise is drawn from the
step's own random numbers, so a resumed run draws the same.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn


@contextmanager
def noisy_embeddings(model: Any, alpha: float | None) -> Generator[None]:
    """Add noise to the embeddings of `model` inside the block, in training mode.

    Args:
        model: a transformers model.
        alpha: α; None or 0 adds nothing.
    """
    if not alpha:
        yield
        return
    lengths: dict[str, Tensor] = {}

    def remember(module: nn.Module, args: Any, given: Mapping[str, Any]) -> None:
        del module
        ids = given.get("input_ids", args[0] if args else None)
        if isinstance(ids, Tensor):
            lengths["tokens"] = sample_lengths(
                ids, given.get("segment_lengths"), given.get("attention_mask")
            )

    def disturb(module: nn.Module, args: Any, embedded: Tensor) -> Tensor:
        del args
        if not module.training or not torch.is_grad_enabled():
            return embedded
        return embedded + embedding_noise(embedded, lengths["tokens"], alpha)

    inner = cast("nn.Module", model.base_model)
    hooks = [
        inner.register_forward_pre_hook(remember, with_kwargs=True),
        cast("nn.Module", model.get_input_embeddings()).register_forward_hook(disturb),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def sample_lengths(
    input_ids: Tensor, segments: Sequence[int] | None, mask: Tensor | None
) -> Tensor:
    """Return the length of the sample that each token belongs to, (B, T).

    Args:
        input_ids: (B, T).
        segments: lengths of the samples of a packed row, B = 1, padding included; or None.
        mask: (B, T), 0 for padding; or None.
    """
    if segments is not None:
        own = torch.tensor(segments, device=input_ids.device)
        return own.repeat_interleave(own)[None]
    if mask is not None and mask.dim() == 2:
        return mask.sum(dim=1, keepdim=True).expand_as(input_ids)
    return torch.full_like(input_ids, input_ids.shape[1])


def embedding_noise(embedded: Tensor, lengths: Tensor, alpha: float) -> Tensor:
    """Return the noise of embeddings.

    Args:
        embedded: (B, T, d).
        lengths: (B, T), L of each token's sample.
        alpha: α.
    """
    scale = alpha / torch.sqrt(lengths.to(embedded.dtype) * embedded.shape[-1])
    return torch.empty_like(embedded).uniform_(-1.0, 1.0) * scale[..., None]
