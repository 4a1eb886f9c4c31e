"""Probabilities in the report: reliability diagram, precision against recall."""

from __future__ import annotations

from typing import Any

from etude.core import units as q
from etude.tuning.report.axis import Axis, linear_axis
from etude.tuning.report.blocks import Block, Plot
from etude.tuning.report.chart import Line, percent_tick, plane_chart


def calibration(content: dict[str, Any]) -> list[Block]:
    """Draw how often predictions of each probability are right.

    Args:
        content: `bins` (count, confidence, accuracy), the expected calibration `error`, and what
            the probabilities are `of`: `classes` or `labels`.
    """
    bins: list[dict[str, Any]] = content["bins"]
    counts = {one["confidence"]: one["count"] for one in bins}
    classes = content["of"] == "classes"
    chart = plane_chart(
        "calibration",
        "Reliability",
        Line(
            "reliability",
            "dots",
            [one["confidence"] for one in bins],
            [one["accuracy"] for one in bins],
            q.percent,
        ),
        unit="share that is right" if classes else "share that has the label",
        x_label="predicted probability",
        at=[f"predicted {q.percent(x)}, {q.number(n)} predictions:" for x, n in counts.items()],
        axes=_unit_axes(),
        summary=f"calibration error {q.percent(content['error'])}",
        diagonal=True,
    )
    note = (
        "Points on the dashed line are calibrated; below it, the model is surer than it should be."
        if classes
        else "Of every label of every sample. Points below the dashed line are overconfident."
    )
    return [Plot(chart, note)]


def precision_recall(content: dict[str, Any]) -> list[Block]:
    """Draw precision against recall over all thresholds.

    Args:
        content: `recall`, `precision`, `average_precision`; of one `class`, or the mean over so
            many `classes`; and the `share` of its samples, which guessing reaches.
    """
    if not content:
        return []
    recall: list[float] = content["recall"]
    chart = plane_chart(
        "precision-recall",
        "Precision and recall",
        Line("precision", "main", recall, content["precision"], q.percent),
        unit="precision",
        x_label="recall",
        at=[f"recall {q.percent(value)}:" for value in recall],
        axes=_unit_axes(),
        summary=f"average precision {q.percent(content['average_precision'])}",
    )
    guessing = f"Guessing has an average precision of {q.percent(content['share'])}."
    if content["class"]:
        note = f"Of class {content['class']}. {guessing}"
    else:
        note = f"Mean over {content['classes']:,} classes, each against the others. {guessing}"
    return [Plot(chart, note)]


def _unit_axes() -> tuple[Axis, Axis]:
    return linear_axis([0, 1], percent_tick), linear_axis([0, 1], percent_tick)
