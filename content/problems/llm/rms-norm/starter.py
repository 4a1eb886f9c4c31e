import torch


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float = 1e-6) -> torch.Tensor:
    """Divide each vector by its root mean square and multiply it by `weight`."""
    raise NotImplementedError
