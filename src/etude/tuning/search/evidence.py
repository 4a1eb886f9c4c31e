"""What a search may conclude: the best trial, the cheapest as good, the front of several aims.

A metric on N evaluation samples has a standard error; trials closer than it are not told apart.
The one-standard-error rule (Breiman et al. 1984, section 3.4.3) takes, of the trials within one
standard error of the best, the cheapest. The error is that of a bootstrap over the samples (Efron
1979):

    accuracy, macro-F1  samples drawn again are counts drawn again: a multinomial over the cells of
                        the confusion matrix
    entity F1           2 Σ right / Σ (true + found) over sentences drawn again
    the loss            Σ loss / Σ weight over micro-batches drawn again, each a cluster of samples
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from etude.tuning.search.record import Selection
from etude.tuning.search.trial import Trial

DRAWS = 2_000
FEWEST = 8
"""With fewer clusters a bootstrap says nothing."""

Floats = NDArray[np.float64]


def standard_error(details: dict[str, Any], metric: str) -> float | None:
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


def cost(trial: Trial) -> tuple[float, float]:
    """Return what a trial costs: trained parameters, then seconds of training."""
    figures = trial.figures
    return (
        float(figures.get("trainable_parameters") or 0),
        float(figures.get("train_seconds") or 0.0),
    )


def select(trials: Sequence[Trial], better: Callable[[float, float], bool]) -> Selection:
    """Name the default, the best, the cheapest as good, and the Pareto front.

    Args:
        trials: of the search, those of every state.
        better: whether the first value of the metric is better than the second.
    """
    finished = [trial for trial in trials if trial.objectives]
    if not finished:
        return Selection(None, None, None)
    best = finished[0]
    for trial in finished[1:]:
        if better(trial.objectives[0], best.objectives[0]):
            best = trial
    within = [
        trial
        for trial in finished
        if trial is best or abs(trial.objectives[0] - best.objectives[0]) <= (best.error or 0.0)
    ]
    cheapest = min(within, key=lambda trial: (*cost(trial), trial.number))
    front: tuple[int, ...] = ()
    if len(best.objectives) > 1:
        front = tuple(one.number for one in finished if not _dominated(one, finished, better))
    default = finished[0].number if finished[0].number == 0 else None
    return Selection(default, best.number, cheapest.number, front)


def _dominated(
    trial: Trial, others: Sequence[Trial], better: Callable[[float, float], bool]
) -> bool:
    """Whether another trial is as good in every objective, and better in one."""
    for other in others:
        first, *costs = other.objectives
        own, *own_costs = trial.objectives
        worse = better(own, first) or any(c > o for c, o in zip(costs, own_costs, strict=True))
        gains = better(first, own) or any(c < o for c, o in zip(costs, own_costs, strict=True))
        if gains and not worse:
            return True
    return False
