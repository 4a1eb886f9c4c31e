# expect: memory limit | time limit
# Right, but for ten thousand million pairs.
import torch


def roc_auc(scores, labels):
    if labels.sum() in (0, len(labels)) or scores.isnan().any():
        raise ValueError("classes")
    p, q = scores[labels == 1], scores[labels == 0]
    wins = (p[:, None] > q).double().sum() + (p[:, None] == q).double().sum() / 2
    return (wins / (len(p) * len(q))).item()
