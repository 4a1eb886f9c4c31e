import math

import torch


def attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return softmax(query · keyᵀ / √d) · value, with True in `mask` where a query may look."""
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
    if mask is None:
        return scores.softmax(-1) @ value
    weights = scores.masked_fill(~mask, -math.inf).softmax(-1)
    # The softmax of nothing but -inf is NaN: a query without a key gets no weight at all.
    return weights.masked_fill(~mask, 0.0) @ value
