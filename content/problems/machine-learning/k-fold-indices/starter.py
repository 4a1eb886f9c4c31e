import torch


def k_fold(order: torch.Tensor, k: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return (training indices, test indices) of each of the `k` folds."""
    raise NotImplementedError
