from collections.abc import Callable

import torch


def bootstrap_interval(
    values: torch.Tensor,
    indices: torch.Tensor,
    statistic: Callable[[torch.Tensor], float],
    level: float,
) -> tuple[float, float]:
    """Return the percentile interval of `statistic` over the resamples."""
    raise NotImplementedError
