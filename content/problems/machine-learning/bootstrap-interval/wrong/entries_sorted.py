# expect: wrong answer: values
# Sorts the places, so a resample stands in another order.
import torch


def bootstrap_interval(values, indices, statistic, level):
    if not 0 < level < 1:
        raise ValueError("level")
    found = torch.tensor(
        [statistic(values[row.sort().values]) for row in indices], dtype=torch.float64
    )
    if not found.isfinite().all():
        raise ValueError("not finite")
    ends = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    return tuple(found.quantile(ends).tolist())
