"""Precision against recall over all thresholds, and thresholds of the best F1.

Average precision is Σ (R_i − R_{i−1}) P_i over the thresholds in descending order, without
interpolation, as scikit-learn computes it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]
Truth = NDArray[np.bool_]


def curve(truth: Truth, scores: Scores) -> tuple[Scores, Scores, Scores]:
    """Return precision, recall and threshold at each distinct score, the highest first."""
    order = np.argsort(-scores, kind="stable")
    sorted_scores, hits = scores[order], truth[order]
    last = np.append(np.flatnonzero(np.diff(sorted_scores)), len(scores) - 1)
    true_positives = np.cumsum(hits)[last]
    positives = max(1, int(truth.sum()))
    return true_positives / (last + 1), true_positives / positives, sorted_scores[last]


def average_precision(truth: Truth, scores: Scores) -> float | None:
    """Return the average precision, 0 to 1; None without a positive."""
    if not truth.any():
        return None
    precision, recall, _ = curve(truth, scores)
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def precision_at(truth: Truth, scores: Scores, recalls: Scores) -> Scores:
    """Return the precision at the first threshold that reaches each recall."""
    precision, recall, _ = curve(truth, scores)
    return precision[np.minimum(np.searchsorted(recall, recalls - 1e-12), len(recall) - 1)]


def best_threshold(truth: Truth, scores: Scores) -> float:
    """Return the threshold with the highest F1 of `scores > threshold`; 0.5 without a positive.

    It lies halfway between the lowest score that is taken and the next one, so that scores a
    little off are treated alike.
    """
    if not truth.any():
        return 0.5
    precision, recall, thresholds = curve(truth, scores)
    f1 = np.divide(
        2 * precision * recall, precision + recall, out=np.zeros_like(recall), where=recall > 0
    )
    best = int(np.argmax(f1))
    if best + 1 < len(thresholds):
        return float((thresholds[best] + thresholds[best + 1]) / 2)
    # All are taken, a score of 0 included.
    return 0.0 if thresholds[best] > 0 else -1.0


def best_thresholds(truth: Truth, scores: Scores, *, shared: bool) -> list[float]:
    """Return a threshold for each column: its own, or one for all by micro-F1.

    Args:
        truth: (samples, labels).
        scores: (samples, labels), probabilities.
        shared: whether all labels have the same threshold.
    """
    labels = truth.shape[1]
    if shared:
        return [best_threshold(truth.ravel(), scores.ravel())] * labels
    return [best_threshold(truth[:, index], scores[:, index]) for index in range(labels)]
