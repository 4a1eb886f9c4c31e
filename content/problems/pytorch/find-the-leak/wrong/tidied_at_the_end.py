# expect: wrong answer: values
# The result is clean, but until the last batch all graphs are alive.
import torch
from torch.nn import functional as F


def train_epoch(model, optimizer, batches):
    total, count = 0.0, 0
    losses, predictions = [], []
    for inputs, targets in batches:
        optimizer.zero_grad()
        outputs = model(inputs)
        loss = F.mse_loss(outputs, targets)
        loss.backward()
        optimizer.step()
        total += loss * len(inputs)
        count += len(inputs)
        losses.append(loss)
        predictions.append(outputs)
    return {
        "mean": total.item() / count,
        "losses": [loss.item() for loss in losses],
        "predictions": torch.cat(predictions).detach(),
    }
