# expect: wrong answer: values
# Mean and standard deviation, as if everything were normal.
import statistics

import torch


def bootstrap_interval(values, indices, statistic, level):
    if not 0 < level < 1:
        raise ValueError("level")
    found = torch.tensor([statistic(values[row]) for row in indices], dtype=torch.float64)
    if not found.isfinite().all():
        raise ValueError("not finite")
    width = statistics.NormalDist().inv_cdf((1 + level) / 2) * found.std(correction=0).item()
    return found.mean().item() - width, found.mean().item() + width
