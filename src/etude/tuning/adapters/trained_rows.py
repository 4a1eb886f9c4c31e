"""Rows of an embedding or of an output matrix, trained while the others stay frozen.

    W[ids] = D,  every other row as it is            D (tokens, width), trained, float32

What is trained are the rows themselves, not a change of them, so that they do not depend on what a
base begins new rows with (PEFT's `trainable_token_indices`). Training copies no matrix: an
embedding looks its trained tokens up in D, and an output matrix's logits of these tokens are
products with D.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

DELTA = "trainable_tokens_delta"
"""PEFT's name of D, which are values, not differences."""


class TrainedRows(nn.Module):
    """Trained rows of one weight, and of the weights tied to it.

    Attributes:
        trainable_tokens_delta: D, (tokens, width), float32.
        ids: (tokens,) int64, the rows' numbers.
    """

    ids: Tensor

    def __init__(self, ids: Sequence[int], values: Tensor) -> None:
        """Begin with `values`, (tokens, width), as the rows numbered `ids`."""
        super().__init__()
        self.trainable_tokens_delta = nn.Parameter(values.detach().float().clone())
        numbers = torch.tensor(list(ids), dtype=torch.long, device=values.device)
        self.register_buffer("ids", numbers, persistent=False)
        self._merged: nn.Parameter | None = None

    def into(self, weight: Tensor) -> Tensor:
        """Return a copy of `weight`, (words, width), with the trained rows, differentiable."""
        rows = self.trainable_tokens_delta.to(weight.dtype)
        return weight.index_copy(0, self.ids, rows)

    @torch.no_grad()
    def merged(self, weight: Tensor, dtype: torch.dtype) -> nn.Parameter:
        """Return the weight of a merged model: one tensor for all modules that share the rows."""
        if self._merged is None:
            whole = weight.detach().to(dtype, copy=True)
            whole[self.ids] = self.trainable_tokens_delta.to(dtype)
            self._merged = nn.Parameter(whole, requires_grad=False)
        return self._merged

    def forward(self, base: nn.Module, x: Tensor) -> Tensor:
        """Return what `base`, an Embedding or a Linear, computes with these rows."""
        y = cast("Tensor", base(x))
        if isinstance(base, nn.Embedding):
            return self._looked_up(base, x, y)
        rows = self.trainable_tokens_delta.to(y.dtype)
        changed = F.linear(x.to(y.dtype), rows)
        bias = cast("Tensor | None", base.bias)
        if bias is not None:
            changed = changed + bias[self.ids].to(y.dtype)
        return y.index_copy(-1, self.ids, changed)

    def _looked_up(self, base: nn.Embedding, x: Tensor, y: Tensor) -> Tensor:
        place = torch.full((base.num_embeddings,), -1, dtype=torch.long, device=x.device)
        place[self.ids] = torch.arange(len(self.ids), device=x.device)
        found = place[x]
        rows = self.trainable_tokens_delta.to(y.dtype)
        values = F.embedding(found.clamp(min=0), rows)
        if base.padding_idx is not None:
            # The row of the padding token has no gradient, as in the embedding itself.
            values = torch.where((x == base.padding_idx)[..., None], values.detach(), values)
        scale: Any = getattr(base, "embed_scale", None)
        if scale is not None:
            values = values * torch.as_tensor(scale).to(values.dtype)
        return torch.where((found >= 0)[..., None], values, y)
