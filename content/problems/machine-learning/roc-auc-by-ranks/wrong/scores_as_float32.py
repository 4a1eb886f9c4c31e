# expect: wrong answer: values
# Different scores become equal.
import torch


def roc_auc(scores, labels):
    n, p = len(labels), int(labels.sum())
    if p in (0, n) or scores.isnan().any():
        raise ValueError("classes")
    _, group, sizes = scores.float().unique(return_inverse=True, return_counts=True)
    doubled = (2 * sizes.cumsum(0) - sizes + 1)[group]
    return (int(doubled[labels == 1].sum()) - p * (p + 1)) / (2 * p * (n - p))
