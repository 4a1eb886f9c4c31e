"""Results of classifiers in the report."""

from __future__ import annotations

from typing import Any

from etude.core import units as q
from etude.tuning.report.blocks import Block, Cell, Heatmap, Table

LARGEST = 30
"""Classes of which a confusion matrix is drawn whole; of more, the most confused pairs are
listed."""
NUMBERED = 14
"""Classes up to which counts are written into the cells."""
PAIRS = 20
SHOWN_CLASSES = 10


def confusion_matrix(content: dict[str, Any]) -> list[Block]:
    """Draw counts of true against predicted classes; of many classes, list the confusions.

    Args:
        content: `labels`, and `counts` (rows are true classes, columns predicted ones).
    """
    labels: list[str] = content["labels"]
    counts: list[list[int]] = content["counts"]
    pairs = [
        (counts[i][j], i, j)
        for i in range(len(labels))
        for j in range(len(labels))
        if i != j and counts[i][j]
    ]
    pairs.sort(key=lambda pair: (-pair[0], pair[1], pair[2]))
    blocks: list[Block] = []
    if len(labels) <= LARGEST:
        blocks.append(_heatmap(labels, counts))
    if len(labels) > NUMBERED and pairs:
        blocks.append(
            Table(
                "Most frequent confusions",
                ("class", "predicted as", "samples", "of the class"),
                [
                    (labels[i], labels[j], q.number(n), q.percent(n / sum(counts[i])))
                    for n, i, j in pairs[:PAIRS]
                ],
                left=frozenset({1}),
                shown=SHOWN_CLASSES,
            )
        )
    return blocks


def per_class(content: dict[str, Any]) -> list[Block]:
    """Draw precision, recall, F1 and support of each class, the worst first.

    Args:
        content: `labels`, and a list for each column.
    """
    order = sorted(range(len(content["labels"])), key=lambda i: (content["f1"][i], i))
    rows = [
        (
            content["labels"][i],
            q.percent(content["precision"][i]),
            q.percent(content["recall"][i]),
            q.percent(content["f1"][i]),
            q.number(content["support"][i]),
        )
        for i in order
    ]
    columns = ("class", "precision", "recall", "F1", "samples")
    return [Table("By class", columns, rows, note="The lowest F1 first.", shown=SHOWN_CLASSES)]


def per_label(content: dict[str, Any]) -> list[Block]:
    """Draw threshold, precision, recall, F1, average precision and support of each label.

    Args:
        content: `labels`, a list for each column, and a `note` on the thresholds.
    """
    order = sorted(range(len(content["labels"])), key=lambda i: (content["f1"][i], i))
    rows = [
        (
            content["labels"][i],
            f"{content['thresholds'][i]:.2f}",
            q.percent(content["precision"][i]),
            q.percent(content["recall"][i]),
            q.percent(content["f1"][i]),
            q.percent(content["average_precision"][i]),
            q.number(content["support"][i]),
        )
        for i in order
    ]
    columns = ("label", "threshold", "precision", "recall", "F1", "average precision", "samples")
    note = " ".join(filter(None, ["The lowest F1 first.", content["note"]]))
    return [Table("By label", columns, rows, note=note, shown=SHOWN_CLASSES)]


def _heatmap(labels: list[str], counts: list[list[int]]) -> Heatmap:
    cells: list[list[Cell]] = []
    for i, row in enumerate(counts):
        total = sum(row)
        cells.append(
            [
                Cell(
                    q.number(n) if n and len(labels) <= NUMBERED else "",
                    f"{labels[i]} predicted as {labels[j]}: {q.number(n)} of {q.number(total)}",
                    n / total if total else 0.0,
                    wrong=i != j,
                )
                for j, n in enumerate(row)
            ]
        )
    return Heatmap(
        "Confusion matrix",
        labels,
        labels,
        cells,
        "true class",
        "predicted class",
        note="Shaded by the share of the true class; errors are orange.",
    )
