"""Accuracy and F1 of predicted classes.

F1 of a class is 2·TP / (2·TP + FP + FN), 0 where the class was neither there nor predicted;
macro-F1 is its mean over the classes, each counting the same however rare it is.
"""

from __future__ import annotations

from collections.abc import Sequence

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
