# expect: wrong answer: shape
# Predicts once more without gradients, after the step: other numbers and twice the work.
import torch
from torch.nn import functional as F


def train_epoch(model, optimizer, batches):
    total, count = 0.0, 0
    losses, predictions = [], []
    for inputs, targets in batches:
        optimizer.zero_grad()
        with torch.no_grad():
            predictions.append(model(inputs))
        loss = F.mse_loss(model(inputs), targets)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        total += loss.item() * len(inputs)
        count += len(inputs)
    return {"mean": total / count, "losses": losses, "predictions": torch.cat(predictions)}
