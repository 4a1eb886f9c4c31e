import torch


def pairwise_squared_distances(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the squared Euclidean distance of each row of `a` from each row of `b`."""
    raise NotImplementedError
