import torch


def suppress(
    boxes: torch.Tensor, scores: torch.Tensor, classes: torch.Tensor, threshold: float
) -> torch.Tensor:
    """Return the indices of the boxes that are kept, the best first."""
    raise NotImplementedError
