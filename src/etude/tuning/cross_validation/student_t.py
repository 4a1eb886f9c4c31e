"""Quantiles of Student's t distribution, for whole degrees of freedom."""

from __future__ import annotations

import math


def cumulative(t: float, freedom: int) -> float:
    """Return P(T ≤ t), by the finite series of Abramowitz and Stegun 1964, 26.7.3 and 26.7.4."""
    angle = math.atan(t / math.sqrt(freedom))
    sine, square = math.sin(angle), math.cos(angle) ** 2
    odd = freedom % 2
    term = math.cos(angle) if odd else 1.0
    total = 0.0
    for number in range(odd, freedom - 1, 2):
        total += term
        term *= square * (number + 1) / (number + 2)
    between = 2 / math.pi * (angle + sine * total) if odd else sine * total
    return 0.5 + between / 2


def quantile(share: float, freedom: int) -> float:
    """Return the t with P(T ≤ t) = `share`, of 0.5 to 1, to a relative error of 1e-12."""
    low, high = 0.0, 1.0
    while cumulative(high, freedom) < share:
        high *= 2
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if cumulative(middle, freedom) < share else (low, middle)
    return high
