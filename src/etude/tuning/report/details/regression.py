"""Predicted numbers in the report: against the true ones, and their errors."""

from __future__ import annotations

from typing import Any

from etude.core import units as q
from etude.tuning.report.axis import linear_axis
from etude.tuning.report.blocks import Block, Plot
from etude.tuning.report.chart import Line, bar_chart, decimal_tick, plane_chart


def regression(content: dict[str, Any]) -> list[Block]:
    """Draw predicted against true numbers, and the errors' distribution.

    Args:
        content: `true` and `predicted` of some of so many `samples`, `residuals` (edges and
            counts), `mean_error`.
    """
    points = sorted(zip(content["true"], content["predicted"], strict=True))
    values = [value for point in points for value in point]
    axes = linear_axis(values, decimal_tick), linear_axis(values, decimal_tick)
    shown = f"{len(points):,} of {content['samples']:,} samples"
    scatter = plane_chart(
        "predicted",
        "Predicted and true",
        Line("predicted", "points", [x for x, _ in points], [y for _, y in points], _written),
        unit="predicted",
        x_label="true",
        at=[f"true {_written(x)}, predicted" for x, _ in points],
        axes=axes,
        summary=shown if len(points) < content["samples"] else f"{len(points):,} samples",
        diagonal=True,
    )
    residuals = content["residuals"]
    errors = bar_chart(
        "residuals",
        "Errors",
        residuals["edges"],
        residuals["counts"],
        x_label="predicted − true",
        tick=decimal_tick,
        summary=f"mean {q.signed(content['mean_error'], 3)}",
    )
    return [Plot(scatter, "On the dashed line, a prediction is exact."), Plot(errors)]


def _written(value: float | None) -> str:
    return q.UNKNOWN if value is None else f"{value:.4g}"
