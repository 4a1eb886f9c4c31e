# expect: wrong answer: no exception | runtime error
# Leaves out what is not finite and goes on.
import torch


def bootstrap_interval(values, indices, statistic, level):
    if not 0 < level < 1:
        raise ValueError("level")
    found = torch.tensor([statistic(values[row]) for row in indices], dtype=torch.float64)
    found = found[found.isfinite()]
    ends = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    return tuple(found.quantile(ends).tolist())
