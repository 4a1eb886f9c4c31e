import math

import torch


def masked_softmax(scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the softmax over the places that `mask` allows; zeros where it allows none."""
    mask = mask.expand(scores.shape)
    alive = mask.any(dim=-1, keepdim=True)
    # A row that sees nothing gets the scores 0, so that no NaN arises, forward or backward.
    filled = scores.masked_fill(~mask, -math.inf).masked_fill(~alive, 0.0)
    return torch.softmax(filled, dim=-1).masked_fill(~mask, 0.0)
