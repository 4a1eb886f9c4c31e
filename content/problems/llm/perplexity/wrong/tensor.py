# expect: wrong answer: type
import torch
from torch.nn import functional as F


def perplexity(batches):
    total, count = torch.zeros(()), 0
    for logits, labels in batches:
        wide = (logits.float() if logits.itemsize < 4 else logits).flatten(0, 1)
        total = total + F.cross_entropy(wide, labels.flatten(), reduction="sum")
        count += int((labels != -100).sum())
    if count == 0:
        raise ValueError("nothing")
    return (total / count).exp()
