"""Smoothing of a series of values, some of which may be missing."""

from __future__ import annotations

from collections.abc import Sequence


def smooth(values: Sequence[float | None], weight: float) -> list[float | None]:
    """Return the exponential moving average, with bias correction.

    y_t = Σ w^(t-i) x_i / Σ w^(t-i) over the finite x_i: the first value is the first loss, not a
    tenth of it (Kingma and Ba 2015, section 3). It is None before the first finite value.

    Args:
        values: in order of steps.
        weight: w, weight of the past; the window is about 1 / (1 - w) steps.
    """
    total = norm = 0.0
    smoothed: list[float | None] = []
    for value in values:
        if value is not None:
            total = weight * total + value
            norm = weight * norm + 1.0
        smoothed.append(total / norm if norm else None)
    return smoothed
