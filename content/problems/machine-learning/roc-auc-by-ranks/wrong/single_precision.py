# expect: wrong answer: values
# Ranks are added up in float32.
import torch


def roc_auc(scores, labels):
    n, p = len(labels), int(labels.sum())
    if p in (0, n) or scores.isnan().any():
        raise ValueError("classes")
    _, group, sizes = scores.unique(return_inverse=True, return_counts=True)
    ranks = (sizes.cumsum(0) - (sizes - 1) / 2)[group]
    return ((ranks[labels == 1].sum() - p * (p + 1) / 2) / (p * (n - p))).item()
