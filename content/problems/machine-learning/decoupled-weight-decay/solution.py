import torch


def adamw_step(
    parameter: torch.Tensor,
    gradient: torch.Tensor,
    mean: torch.Tensor,
    square: torch.Tensor,
    step: int,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    decay: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return parameter, mean and square after one step of AdamW."""
    beta1, beta2 = betas
    mean = beta1 * mean + (1 - beta1) * gradient
    square = beta2 * square + (1 - beta2) * gradient**2
    # Both averages began with 0, and are too small by these factors.
    direction = mean / (1 - beta1**step)
    size = (square / (1 - beta2**step)).sqrt()
    # The decay stands beside the division, so that all elements shrink at the same rate.
    return (1 - lr * decay) * parameter - lr * direction / (size + eps), mean, square
