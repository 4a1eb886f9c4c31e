# expect: wrong answer: values
# The right levels, mirrored.
import torch
from torch.special import ndtr, ndtri


def normal_float(bits=4, offset=None):
    half = 2 ** (bits - 1)
    if offset is None:
        offset = 1 - (1 / (4 * half) + 1 / (2 * (2 * half - 1))) / 2
    if not 2 <= bits <= 8 or not 0.5 < offset < 1:
        raise ValueError("bits or offset")
    below = -ndtri(torch.linspace(offset, 0.5, half + 1, dtype=torch.float64)[:-1])
    above = ndtri(torch.linspace(0.5, offset, half, dtype=torch.float64)[1:])
    one = torch.ones(1, dtype=torch.float64)
    z = torch.cat([below, 0 * one, above])
    middles = (z[:-1] + z[1:]) / 2
    shares = torch.cat([0 * one, ndtr(middles), one]).diff()
    return (z / z[-1]).float(), shares.float()
