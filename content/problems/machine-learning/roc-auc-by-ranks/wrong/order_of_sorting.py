# expect: wrong answer: values
# Equal scores get different ranks, by their place.
import torch


def roc_auc(scores, labels):
    n, p = len(labels), int(labels.sum())
    if p in (0, n) or scores.isnan().any():
        raise ValueError("classes")
    ranks = scores.argsort(stable=True).argsort() + 1
    return (int(ranks[labels == 1].sum()) - p * (p + 1) / 2) / (p * (n - p))
