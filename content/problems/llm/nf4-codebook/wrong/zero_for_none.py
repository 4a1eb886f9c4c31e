# expect: wrong answer: no exception
# An offset of 0 counts as not given.
import torch
from torch.special import ndtr, ndtri


def normal_float(bits=4, offset=None):
    half = 2 ** (bits - 1)
    offset = offset or 1 - (1 / (4 * half) + 1 / (2 * (2 * half - 1))) / 2
    if not 2 <= bits <= 8 or not 0.5 < offset < 1:
        raise ValueError("bits or offset")
    below = -ndtri(torch.linspace(offset, 0.5, half, dtype=torch.float64)[:-1])
    above = ndtri(torch.linspace(0.5, offset, half + 1, dtype=torch.float64)[1:])
    one = torch.ones(1, dtype=torch.float64)
    z = torch.cat([below, 0 * one, above])
    middles = (z[:-1] + z[1:]) / 2
    shares = torch.cat([0 * one, ndtr(middles), one]).diff()
    return (z / z[-1]).float(), shares.float()
