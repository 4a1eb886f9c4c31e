from collections.abc import Callable

import torch


def bootstrap_interval(
    values: torch.Tensor,
    indices: torch.Tensor,
    statistic: Callable[[torch.Tensor], float],
    level: float,
) -> tuple[float, float]:
    """Return the percentile interval of `statistic` over the resamples."""
    if not 0 < level < 1:
        raise ValueError(f"level {level} is not between 0 and 1")
    # An index into the first dimension takes whole rows, so what belongs together stays together.
    found = torch.tensor([statistic(values[row]) for row in indices], dtype=torch.float64)
    if not found.isfinite().all():
        raise ValueError("the statistic of a resample is not finite")
    ends = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    low, high = found.quantile(ends).tolist()
    return low, high
