import torch


def homography(source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the 3 × 3 matrix that takes `source` points to `target` points."""
    raise NotImplementedError
