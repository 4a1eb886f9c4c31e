# expect: wrong answer: values
# No leak, but every batch has the same weight.
import torch
from torch.nn import functional as F


def train_epoch(model, optimizer, batches):
    losses, predictions = [], []
    for inputs, targets in batches:
        optimizer.zero_grad()
        outputs = model(inputs)
        loss = F.mse_loss(outputs, targets)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        predictions.append(outputs.detach())
    mean = sum(losses) / len(losses)
    return {"mean": mean, "losses": losses, "predictions": torch.cat(predictions)}
