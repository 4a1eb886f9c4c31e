# expect: wrong answer: type
# Detached, but still a tensor: a float is asked for.
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
        total += loss.detach() * len(inputs)
        count += len(inputs)
        losses.append(loss.item())
        predictions.append(outputs.detach())
    return {"mean": total / count, "losses": losses, "predictions": torch.cat(predictions)}
