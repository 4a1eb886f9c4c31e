import torch
from torch import nn
from torch.nn import functional as F

IGNORED = -100


def accumulate(model: nn.Module, batches: list[tuple[torch.Tensor, torch.Tensor]]) -> float:
    """Leave the gradient of the mean loss of all labels in `.grad`, and return this loss."""
    model.zero_grad()
    # Labels are known before any forward pass, so each part can be divided by the final number.
    count = sum(int((labels != IGNORED).sum()) for _, labels in batches)
    total = 0.0
    for inputs, labels in batches:
        if not (labels != IGNORED).any():
            continue
        logits = model(inputs)
        part = F.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum"
        )
        part = part / count
        part.backward()
        total += part.item()
    return total
