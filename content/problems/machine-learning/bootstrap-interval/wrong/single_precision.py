# expect: wrong answer: values
# float32 has seven digits.
import torch


def bootstrap_interval(values, indices, statistic, level):
    if not 0 < level < 1:
        raise ValueError("level")
    found = torch.tensor([statistic(values[row]) for row in indices])
    if not found.isfinite().all():
        raise ValueError("not finite")
    return tuple(found.quantile(torch.tensor([(1 - level) / 2, (1 + level) / 2])).tolist())
