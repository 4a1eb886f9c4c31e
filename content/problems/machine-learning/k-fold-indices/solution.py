import torch


def k_fold(order: torch.Tensor, k: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return (training indices, test indices) of each of the `k` folds."""
    if not 2 <= k <= len(order):
        raise ValueError(f"{k} folds of {len(order)} samples")
    # Given a number of pieces, tensor_split makes the first ones longer by one.
    folds = order.tensor_split(k)
    return [(torch.cat(folds[:i] + folds[i + 1 :]), fold) for i, fold in enumerate(folds)]
