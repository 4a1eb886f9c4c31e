import torch


def patch_embedding(images: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Return one vector for each patch of each image, (N, L, D)."""
    raise NotImplementedError
