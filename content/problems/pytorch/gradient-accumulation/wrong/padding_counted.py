# expect: wrong answer: values
# Divides by all places, also those that do not count.
from torch.nn import functional as F


def accumulate(model, batches):
    model.zero_grad()
    count = sum(labels.numel() for _, labels in batches)
    total = 0.0
    for inputs, labels in batches:
        loss = F.cross_entropy(model(inputs).flatten(0, 1), labels.flatten(), reduction="sum")
        (loss / count).backward()
        total += loss.item() / count
    return total
