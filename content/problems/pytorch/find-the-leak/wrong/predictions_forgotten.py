# expect: wrong answer: values
# The losses are numbers now; the predictions still hold their graphs.
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
        losses.append(loss.item())
        total += loss.item() * len(inputs)
        count += len(inputs)
        predictions.append(outputs)
    return {"mean": total / count, "losses": losses, "predictions": torch.cat(predictions)}
