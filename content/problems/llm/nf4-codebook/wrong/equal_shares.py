# expect: wrong answer: values
# Believes that quantiles are used equally often.
import torch
from torch.special import ndtri


def normal_float(bits=4, offset=None):
    half = 2 ** (bits - 1)
    if offset is None:
        offset = 1 - (1 / (4 * half) + 1 / (2 * (2 * half - 1))) / 2
    if not 2 <= bits <= 8 or not 0.5 < offset < 1:
        raise ValueError("bits or offset")
    below = -ndtri(torch.linspace(offset, 0.5, half, dtype=torch.float64)[:-1])
    above = ndtri(torch.linspace(0.5, offset, half + 1, dtype=torch.float64)[1:])
    z = torch.cat([below, torch.zeros(1, dtype=torch.float64), above])
    return (z / z[-1]).float(), torch.full((2 * half,), 1 / (2 * half))
