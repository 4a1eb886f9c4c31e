# expect: wrong answer: no exception
# Invents an area where there is no pair.
import torch


def roc_auc(scores, labels):
    n, p = len(labels), int(labels.sum())
    if scores.isnan().any():
        raise ValueError("NaN")
    if p in (0, n):
        return 0.5
    _, group, sizes = scores.unique(return_inverse=True, return_counts=True)
    doubled = (2 * sizes.cumsum(0) - sizes + 1)[group]
    return (int(doubled[labels == 1].sum()) - p * (p + 1)) / (2 * p * (n - p))
