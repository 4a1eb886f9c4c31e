import math

import torch
from torch.nn import functional as F

IGNORED = -100


def perplexity(batches: list[tuple[torch.Tensor, torch.Tensor]]) -> float:
    """Return exp of the mean negative log-probability of all labels but those of -100."""
    total, count = 0.0, 0
    for logits, labels in batches:
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32)).flatten(0, 1)
        loss = F.cross_entropy(wide, labels.flatten(), ignore_index=IGNORED, reduction="sum")
        total += loss.item()
        count += int((labels != IGNORED).sum())
    if count == 0:
        raise ValueError("no label counts")
    try:
        return math.exp(total / count)
    except OverflowError:
        return math.inf
