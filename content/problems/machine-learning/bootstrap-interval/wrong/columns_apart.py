# expect: wrong answer: values
# Draws the columns apart from each other.
import torch


def bootstrap_interval(values, indices, statistic, level):
    if not 0 < level < 1:
        raise ValueError("level")
    found = []
    for number, row in enumerate(indices):
        sample = values[row].clone()
        if values.dim() == 2:
            for column in range(1, values.shape[1]):
                sample[:, column] = values[indices[number - 1], column]
        found.append(statistic(sample))
    found = torch.tensor(found, dtype=torch.float64)
    if not found.isfinite().all():
        raise ValueError("not finite")
    ends = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    return tuple(found.quantile(ends).tolist())
