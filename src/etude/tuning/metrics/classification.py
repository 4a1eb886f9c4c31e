"""Accuracy, precision, recall and F1 of predicted classes and labels.

F1 of a class is 2·TP / (2·TP + FP + FN), 0 where the class was neither there nor predicted;
macro-F1 is its mean over the classes, each counting the same however rare it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def accuracy(labels: Sequence[int], predicted: Sequence[int]) -> float:
    """Return the share of predictions that are right, 0 to 1; NaN without any."""
    if not labels:
        return float("nan")
    return sum(map(int.__eq__, labels, predicted)) / len(labels)


def confusion_matrix(
    labels: Sequence[int], predicted: Sequence[int], classes: int
) -> NDArray[np.int64]:
    """Return (classes, classes) counts: rows are true classes, columns predicted ones."""
    matrix = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(matrix, (np.asarray(labels, dtype=int), np.asarray(predicted, dtype=int)), 1)
    return matrix


def macro_f1(labels: Sequence[int], predicted: Sequence[int], classes: int) -> float:
    """Return the mean F1 over all classes, 0 to 1."""
    matrix = confusion_matrix(labels, predicted, classes)
    hits = np.diag(matrix)
    counts = matrix.sum(0) + matrix.sum(1)
    return float(np.mean(np.divide(2 * hits, counts, out=np.zeros(classes), where=counts > 0)))


def class_report(counts: NDArray[np.int64]) -> dict[str, list[float]]:
    """Return precision, recall, F1 and support of each class; 0 where a share is of nothing.

    Args:
        counts: a confusion matrix, rows are true classes.
    """
    hits, predicted, support = np.diag(counts), counts.sum(0), counts.sum(1)
    return _report(hits, predicted, support)


def label_report(truth: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> dict[str, list[float]]:
    """Return precision, recall, F1 and support of each label, (samples, labels) each."""
    return _report((truth & predicted).sum(0), predicted.sum(0), truth.sum(0))


def f1_of_labels(truth: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> tuple[float, float]:
    """Return micro-F1 (over all decisions) and macro-F1 (the mean over labels), 0 to 1."""
    hits = int((truth & predicted).sum())
    total = int(truth.sum()) + int(predicted.sum())
    micro = 2 * hits / total if total else 0.0
    return micro, float(np.mean(label_report(truth, predicted)["f1"]))


def _report(
    hits: NDArray[Any], predicted: NDArray[Any], support: NDArray[Any]
) -> dict[str, list[float]]:
    def share(part: NDArray[Any], whole: NDArray[Any]) -> list[float]:
        return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0).tolist()

    return {
        "precision": share(hits, predicted),
        "recall": share(hits, support),
        "f1": share(2 * hits, predicted + support),
        "support": support.tolist(),
    }
