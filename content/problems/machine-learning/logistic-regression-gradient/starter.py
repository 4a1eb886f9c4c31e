import torch


def logistic_loss(
    features: torch.Tensor,
    labels: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    decay: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the loss of logistic regression and its gradients by weight and bias."""
    raise NotImplementedError
