import torch


def roc_auc(scores: torch.Tensor, labels: torch.Tensor) -> float:
    """Return the share of pairs in which the positive sample has the higher score."""
    positive = labels == 1
    wins = int(positive.sum())
    pairs = wins * (len(labels) - wins)
    if pairs == 0:
        raise ValueError("both classes are needed")
    if scores.isnan().any():
        raise ValueError("a score is NaN")
    _, group, sizes = scores.unique(return_inverse=True, return_counts=True)
    # Equal scores share the mean of the ranks that they take up. Twice that mean is a whole number,
    # so that everything up to the division is exact.
    doubled = 2 * sizes.cumsum(0) - sizes + 1
    above = int(doubled[group[positive]].sum()) - wins * (wins + 1)
    return above / (2 * pairs)
