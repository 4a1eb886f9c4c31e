import torch


def pca(features: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the first `count` components, their ratios of variance, and the projections."""
    raise NotImplementedError
