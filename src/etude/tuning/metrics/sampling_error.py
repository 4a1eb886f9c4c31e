"""Standard error of a metric over the evaluation samples: what other samples might have given.

That of a bootstrap over the samples (Efron 1979), of 2,000 draws:

    accuracy, macro-F1  samples drawn again are counts drawn again: a multinomial over the cells of
                        the confusion matrix
    entity F1           2 Σ right / Σ (true + found) over sentences drawn again
    the loss            Σ loss / Σ weight over micro-batches drawn again, each a cluster of samples

It says nothing of other seeds or other training data.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

DRAWS = 2_000
FEWEST = 8
"""With fewer clusters a bootstrap says nothing."""

Floats = NDArray[np.float64]


def standard_error(details: Mapping[str, Any], metric: str) -> float | None:
    """Return the standard error of a run's metric over its evaluation samples.

    Args:
        details: of the run, details.json.
        metric: its name.

    Returns:
        None where the run did not record what it needs.
    """
    generator = np.random.default_rng(0)
    if metric in ("accuracy", "macro_f1") and "confusion_matrix" in details:
        return _of_counts(np.asarray(details["confusion_matrix"]["counts"]), metric, generator)
    if metric == "eval_loss" and "loss_parts" in details:
        parts = np.asarray(details["loss_parts"], dtype=np.float64)
        return _of_ratio(parts[:, 0], parts[:, 1], generator)
    if metric == "entity_f1" and "entity_counts" in details:
        counts = np.asarray(details["entity_counts"], dtype=np.float64)
        return _of_ratio(2 * counts[:, 2], counts[:, 0] + counts[:, 1], generator)
    return None


def _of_counts(counts: NDArray[Any], metric: str, generator: np.random.Generator) -> float | None:
    """Return the error of a metric of a confusion matrix (true, predicted)."""
    total = int(counts.sum())
    if total < FEWEST:
        return None
    cells = counts.ravel() / total
    classes = len(counts)
    found: list[float] = []
    # A piece at a time: many classes have many cells.
    rows = max(1, 2_000_000 // len(cells))
    for done in range(0, DRAWS, rows):
        drawn = generator.multinomial(total, cells, size=min(rows, DRAWS - done))
        drawn = drawn.reshape(-1, classes, classes).astype(np.float64)
        right = np.einsum("nii->ni", drawn)
        if metric == "accuracy":
            found += (right.sum(axis=1) / total).tolist()
            continue
        both = drawn.sum(axis=1) + drawn.sum(axis=2)
        found += (
            np.divide(2 * right, both, out=np.zeros_like(right), where=both > 0)
            .mean(axis=1)
            .tolist()
        )
    return float(np.std(found, ddof=1))


def _of_ratio(sums: Floats, weights: Floats, generator: np.random.Generator) -> float | None:
    """Return the error of Σ sums / Σ weights over clusters."""
    count = len(sums)
    if count < FEWEST:
        return None
    found: list[float] = []
    rows = max(1, 2_000_000 // count)
    for done in range(0, DRAWS, rows):
        chosen = generator.integers(0, count, (min(rows, DRAWS - done), count))
        below = weights[chosen].sum(axis=1)
        above = sums[chosen].sum(axis=1)
        found += np.divide(above, below, out=np.zeros_like(above), where=below > 0).tolist()
    return float(np.std(found, ddof=1))


def standard_errors(details: Mapping[str, Any], metrics: Iterable[str]) -> dict[str, float]:
    """Return the standard error of each metric whose error is known, by name."""
    found = {name: standard_error(details, name) for name in metrics}
    return {name: error for name, error in found.items() if error is not None}
