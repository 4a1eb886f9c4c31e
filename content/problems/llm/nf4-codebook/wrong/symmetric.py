# expect: wrong answer: values
# Quantiles from end to end: symmetric, and without a zero.
import torch
from torch.special import ndtr, ndtri


def normal_float(bits=4, offset=None):
    half = 2 ** (bits - 1)
    if offset is None:
        offset = 1 - (1 / (4 * half) + 1 / (2 * (2 * half - 1))) / 2
    if not 2 <= bits <= 8 or not 0.5 < offset < 1:
        raise ValueError("bits or offset")
    z = ndtri(torch.linspace(1 - offset, offset, 2 * half, dtype=torch.float64))
    middles = (z[:-1] + z[1:]) / 2
    one = torch.ones(1, dtype=torch.float64)
    shares = torch.cat([0 * one, ndtr(middles), one]).diff()
    return (z / z[-1]).float(), shares.float()
