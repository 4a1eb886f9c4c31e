import torch
from torch.special import ndtr, ndtri


def normal_float(bits: int = 4, offset: float | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the levels of NormalFloat in ascending order, and how often each is used."""
    if not 2 <= bits <= 8:
        raise ValueError(f"bits must be from 2 to 8, not {bits}")
    half = 2 ** (bits - 1)
    if offset is None:
        offset = 1 - (1 / (4 * half) + 1 / (2 * (2 * half - 1))) / 2
    if not 0.5 < offset < 1:
        raise ValueError(f"the offset must be between 0.5 and 1, not {offset}")

    def quantiles(count: int) -> torch.Tensor:
        # The first probability is 1/2, whose quantile is 0: left out here, added once below.
        return ndtri(torch.linspace(0.5, offset, count + 1, dtype=torch.float64)[1:])

    outermost = ndtri(torch.tensor(offset, dtype=torch.float64))
    zero = torch.zeros(1, dtype=torch.float64)
    levels = torch.cat([-quantiles(half - 1).flip(0), zero, quantiles(half)]) / outermost
    middles = (levels[:-1] + levels[1:]) / 2
    below = torch.cat([zero, ndtr(middles * outermost), zero + 1])
    return levels.float(), below.diff().float()
