# expect: wrong answer: values
import math

from torch.nn import functional as F


def perplexity(batches):
    losses = []
    for logits, labels in batches:
        if (labels != -100).any():
            wide = logits.float() if logits.itemsize < 4 else logits
            losses.append(F.cross_entropy(wide.flatten(0, 1), labels.flatten()).item())
    if not losses:
        raise ValueError("nothing")
    mean = sum(losses) / len(losses)
    return math.exp(mean) if mean < 709 else math.inf
