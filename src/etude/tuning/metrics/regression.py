"""Errors and correlations of predicted numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def regression_metrics(labels: Sequence[float], predicted: Sequence[float]) -> dict[str, float]:
    """Return `rmse`, `mae`, `pearson` and `spearman`.

    A correlation with numbers that are all equal is undefined; it is reported as 0.
    """
    truth, found = np.asarray(labels, float), np.asarray(predicted, float)
    errors = found - truth
    return {
        "rmse": float(np.sqrt(np.mean(errors**2))),
        "mae": float(np.mean(np.abs(errors))),
        "pearson": pearson(truth, found),
        "spearman": pearson(average_ranks(truth), average_ranks(found)),
    }


def pearson(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Return Pearson's correlation; 0 where one side does not vary."""
    x, y = x - x.mean(), y - y.mean()
    norm = float(np.sqrt((x @ x) * (y @ y)))
    return float(np.clip(x @ y / norm, -1, 1)) if norm > 0 else 0.0


def average_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the ranks from 1, equal values sharing the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[inverse]
