# expect: wrong answer: values
import torch
from torch.nn import functional as F


def perplexity(batches):
    every = []
    for logits, labels in batches:
        wide = (logits.float() if logits.itemsize < 4 else logits).flatten(0, 1)
        loss = F.cross_entropy(wide, labels.flatten(), reduction="none")
        every.append(loss[labels.flatten() != -100].double().exp())
    if sum(map(len, every)) == 0:
        raise ValueError("nothing")
    return torch.cat(every).mean().item()
