# expect: runtime error
# Detaches before the backward pass, which then has no graph to walk.
import torch
from torch.nn import functional as F


def train_epoch(model, optimizer, batches):
    total, count = 0.0, 0
    losses, predictions = [], []
    for inputs, targets in batches:
        optimizer.zero_grad()
        outputs = model(inputs).detach()
        loss = F.mse_loss(outputs, targets)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        total += loss.item() * len(inputs)
        count += len(inputs)
        predictions.append(outputs)
    return {"mean": total / count, "losses": losses, "predictions": torch.cat(predictions)}
