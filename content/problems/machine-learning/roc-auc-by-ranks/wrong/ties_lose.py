# expect: wrong answer: values
# An equal score counts nothing.
import torch


def roc_auc(scores, labels):
    n, p = len(labels), int(labels.sum())
    if p in (0, n) or scores.isnan().any():
        raise ValueError("classes")
    q = scores[labels == 0].sort().values
    return int(torch.searchsorted(q, scores[labels == 1]).sum()) / (p * (n - p))
