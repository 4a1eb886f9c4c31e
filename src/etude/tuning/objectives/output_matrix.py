"""The matrix that hidden states are multiplied by, some of whose rows may be trained alone.

    z = h Wᵀ, and z[ids] = h Dᵀ where D are the trained rows        (`adapters.trained_rows`)

W with those rows in place is never made: it would be as large as W, and its gradient too, of which
a few rows are wanted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class OutputMatrix:
    """An output matrix."""

    weight: Tensor
    """W, (words, width)."""

    rows: Tensor | None = None
    """D, (tokens, width), in the place of some rows of W; None: W is all there is."""

    ids: Tensor | None = None
    """(tokens,) int64, the numbers of these rows."""

    def to(self, dtype: torch.dtype) -> OutputMatrix:
        """Return the matrix in the dtype that is computed in."""
        rows = None if self.rows is None else self.rows.to(dtype)
        return replace(self, weight=self.weight.to(dtype), rows=rows)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the logits, (N, words), of `hidden`, (N, width), of the same dtype."""
        return self.with_rows(hidden @ self.weight.t(), hidden)

    def with_rows(self, logits: Tensor, hidden: Tensor) -> Tensor:
        """Return `logits`, hidden Wᵀ, with those of the trained rows, in place."""
        if self.rows is not None and self.ids is not None:
            logits[:, self.ids] = hidden @ self.rows.t()
        return logits

    def grad_rows(self, gradient: Tensor, hidden: Tensor) -> Tensor:
        """Return the gradient of D, for that of the logits, (N, words)."""
        return gradient[:, self.ids].t() @ hidden

    def grad_hidden(self, gradient: Tensor) -> Tensor:
        """Return the gradient of the hidden states for that of the logits, which is overwritten."""
        if self.rows is None or self.ids is None:
            return gradient @ self.weight
        of_rows = gradient[:, self.ids]
        gradient[:, self.ids] = 0
        return (gradient @ self.weight).addmm_(of_rows, self.rows)
