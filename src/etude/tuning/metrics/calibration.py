"""Calibration: whether predictions made with probability p are right in a share p of cases."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BINS = 10


@dataclass(frozen=True)
class Bin:
    """Predictions whose probability lies in one range."""

    count: int
    confidence: float
    """Mean probability."""
    accuracy: float
    """Share that was right."""


def reliability(
    confidence: NDArray[np.float64], right: NDArray[np.bool_], bins: int = BINS
) -> tuple[list[Bin], float]:
    """Return the bins that hold a prediction, and the expected calibration error.

    ECE = Σ_b n_b / n · |accuracy_b − confidence_b| over ranges of equal width (Guo et al. 2017,
    equation 3); a probability on a boundary belongs to the lower range.
    """
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    found: list[Bin] = []
    error = 0.0
    for index in range(bins):
        inside = place == index
        count = int(inside.sum())
        if not count:
            continue
        mean, share = float(confidence[inside].mean()), float(right[inside].mean())
        found.append(Bin(count, mean, share))
        error += count / len(confidence) * abs(share - mean)
    return found, error
