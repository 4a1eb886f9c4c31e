# expect: wrong answer: values
# The basic interval, which is mirrored at the estimate.
import torch


def bootstrap_interval(values, indices, statistic, level):
    if not 0 < level < 1:
        raise ValueError("level")
    found = torch.tensor([statistic(values[row]) for row in indices], dtype=torch.float64)
    if not found.isfinite().all():
        raise ValueError("not finite")
    ends = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    low, high = found.quantile(ends).tolist()
    whole = statistic(values)
    return 2 * whole - high, 2 * whole - low
