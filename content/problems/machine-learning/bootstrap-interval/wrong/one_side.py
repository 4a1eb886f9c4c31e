# expect: wrong answer: values
# Leaves the whole rest on each side.
import torch


def bootstrap_interval(values, indices, statistic, level):
    if not 0 < level < 1:
        raise ValueError("level")
    found = torch.tensor([statistic(values[row]) for row in indices], dtype=torch.float64)
    if not found.isfinite().all():
        raise ValueError("not finite")
    ends = torch.tensor([1 - level, level], dtype=torch.float64)
    return tuple(found.quantile(ends).tolist())
