import torch
from torch.nn import functional as F


def logistic_loss(
    features: torch.Tensor,
    labels: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    decay: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the loss of logistic regression and its gradients by weight and bias."""
    sign = (2 * labels - 1).to(features.dtype)
    margin = sign * (features @ weight + bias)
    # Everything in terms of the margin: σ(z) − y would be 1 − 1 for a confident right answer,
    # while −sign · σ(−margin) is the same number without a difference.
    loss = -F.logsigmoid(margin).mean() + decay / 2 * weight.square().sum()
    residual = -sign * torch.sigmoid(-margin) / len(labels)
    return loss, residual @ features + decay * weight, residual.sum()
