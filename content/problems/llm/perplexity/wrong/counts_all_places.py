# expect: wrong answer: values
import math

from torch.nn import functional as F


def perplexity(batches):
    total, count = 0.0, 0
    for logits, labels in batches:
        wide = (logits.float() if logits.itemsize < 4 else logits).flatten(0, 1)
        total += F.cross_entropy(wide, labels.flatten(), reduction="sum").item()
        count += labels.numel() if (labels != -100).any() else 0
    if count == 0:
        raise ValueError("nothing")
    return math.exp(total / count) if total / count < 709 else math.inf
