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
        loss.backward(retain_graph=True)
        optimizer.step()
        total += loss * len(inputs)
        count += len(inputs)
        losses.append(loss)
        predictions.append(outputs)
    return {"mean": total / count, "losses": losses, "predictions": torch.cat(predictions)}
