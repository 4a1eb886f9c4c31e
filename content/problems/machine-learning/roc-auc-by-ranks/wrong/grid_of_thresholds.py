# expect: wrong answer: values
# A curve through a hundred thresholds between the lowest and the highest score.
import torch


def roc_auc(scores, labels):
    n, p = len(labels), int(labels.sum())
    if p in (0, n) or scores.isnan().any():
        raise ValueError("classes")
    scores = scores.double()
    thresholds = torch.linspace(scores.max().item() + 1, scores.min().item(), 101).double()
    hits = torch.stack([(scores[labels == 1] >= t).double().mean() for t in thresholds])
    alarms = torch.stack([(scores[labels == 0] >= t).double().mean() for t in thresholds])
    return torch.trapezoid(hits, alarms).item()
