import torch
from torch import nn
from torch.nn import functional as F


def train_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: list[tuple[torch.Tensor, torch.Tensor]],
) -> dict:
    """Train one epoch; return the mean loss, the losses and the predictions."""
    total, count = 0.0, 0
    losses, predictions = [], []
    for inputs, targets in batches:
        optimizer.zero_grad()
        outputs = model(inputs)
        loss = F.mse_loss(outputs, targets)
        loss.backward()
        optimizer.step()
        # Numbers and detached tensors have no graph. What has one is bound to names of this loop
        # only, and goes when they are bound anew.
        losses.append(loss.item())
        predictions.append(outputs.detach())
        total += losses[-1] * len(inputs)
        count += len(inputs)
    return {"mean": total / count, "losses": losses, "predictions": torch.cat(predictions)}
