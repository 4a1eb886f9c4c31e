# expect: wrong answer: values
# Only the last micro-batch is left.
from torch.nn import functional as F


def accumulate(model, batches):
    model.zero_grad()
    count = sum(int((labels != -100).sum()) for _, labels in batches)
    total = 0.0
    for inputs, labels in batches:
        if (labels != -100).any():
            model.zero_grad()
            loss = F.cross_entropy(model(inputs).flatten(0, 1), labels.flatten(), reduction="sum")
            (loss / count).backward()
            total += loss.item() / count
    return total
