# expect: wrong answer: values
# Right numbers, but all graphs wait for one backward pass: no memory is saved.
from torch.nn import functional as F


def accumulate(model, batches):
    model.zero_grad()
    count = sum(int((labels != -100).sum()) for _, labels in batches)
    if not count:
        return 0.0
    total = sum(
        F.cross_entropy(model(inputs).flatten(0, 1), labels.flatten(), reduction="sum")
        for inputs, labels in batches
    )
    (total / count).backward()
    return (total / count).item()
