# expect: wrong answer: values
# The usual fault: every micro-batch has the same weight, however many labels it holds.
from torch.nn import functional as F


def accumulate(model, batches):
    model.zero_grad()
    total = 0.0
    for inputs, labels in batches:
        loss = F.cross_entropy(model(inputs).flatten(0, 1), labels.flatten()) / len(batches)
        loss.backward()
        total += loss.item()
    return total
