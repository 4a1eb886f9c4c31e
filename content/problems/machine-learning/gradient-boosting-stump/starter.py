import torch


def best_split(
    features: torch.Tensor,
    gradients: torch.Tensor,
    hessians: torch.Tensor,
    decay: float,
    fewest: int,
    least: float,
) -> dict | None:
    """Return the split with the largest gain, or None where none is worth it."""
    raise NotImplementedError
