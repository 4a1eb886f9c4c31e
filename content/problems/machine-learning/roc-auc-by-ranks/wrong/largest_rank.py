# expect: wrong answer: values
# Equal scores all get the last of their ranks.
import torch


def roc_auc(scores, labels):
    n, p = len(labels), int(labels.sum())
    if p in (0, n) or scores.isnan().any():
        raise ValueError("classes")
    _, group, sizes = scores.unique(return_inverse=True, return_counts=True)
    ranks = sizes.cumsum(0)[group]
    return (int(ranks[labels == 1].sum()) - p * (p + 1) / 2) / (p * (n - p))
