"""Parallel coordinates: every trial as a line across an axis for each key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from etude.tuning.config.reference import as_yaml
from etude.tuning.report.axis import linear_axis
from etude.tuning.report.chart import BOX
from etude.tuning.search.charts import (
    common_metric,
    common_value,
    metric_tick,
    place_of,
    shortened,
    style_of,
    value_axis,
)
from etude.tuning.search.ranges import Range
from etude.tuning.search.record import SearchRecord
from etude.tuning.search.view import value_text


@dataclass(frozen=True)
class ParallelAxis:
    """One axis of the parallel coordinates, with places in percent of its height."""

    left: float
    title: str
    ticks: list[tuple[float, str]]
    side: str
    """CSS class of the labels: `first` of the first axis, `last` of the metric's, else empty."""


@dataclass(frozen=True)
class Parallel:
    """Parallel coordinates (Inselberg 1985): a line a trial across an axis for each key."""

    axes: list[ParallelAxis]
    paths: list[tuple[str, str]]
    """CSS class and SVG path data, the ones drawn last on top."""
    spoken: str
    width: float
    """Least width of the drawing, in rem."""


def parallel(ranges: Sequence[Range], record: SearchRecord) -> Parallel | None:
    """Draw every trial with a value across an axis for each key; None with fewer than two."""
    metric = common_metric(record)
    compared = [
        (trial, value) for trial in record.trials if (value := common_value(trial)) is not None
    ]
    if len(compared) < 2 or not ranges:
        return None
    values = [value for _, value in compared]
    quality = linear_axis(values, metric_tick(metric), count=4)
    low, high = (0.0, 1.0) if metric.higher_is_better else (1.0, 0.0)
    places = [index / len(ranges) for index in range(len(ranges) + 1)]
    axes = [
        ParallelAxis(
            100 * place,
            one.key.rpartition(".")[2],
            [(100 * place_of(one, value_axis(one), v), t) for v, t in _labels(one)],
            "first" if place == 0 else "",
        )
        for place, one in zip(places, ranges, strict=False)
    ]
    axes.append(
        ParallelAxis(
            100.0,
            metric.title,
            [(100 * (low + (high - low) * tick.position), tick.label) for tick in quality.ticks],
            "last",
        )
    )
    ranked = sorted(values, reverse=metric.higher_is_better)
    quarter = ranked[max(0, (len(ranked) + 3) // 4 - 1)]
    paths: dict[str, list[str]] = {"rest": [], "quarter": [], "default": [], "best": []}
    for trial, value in compared:
        heights = [
            (place, place_of(one, value_axis(one), trial.values[one.key]))
            for place, one in zip(places, ranges, strict=False)
            if one.key in trial.values
        ]
        heights.append((1.0, low + (high - low) * quality.position(value)))
        path = "".join(
            f"{'L' if index else 'M'}{BOX * x:.0f} {BOX * (1 - y):.0f}"
            for index, (x, y) in enumerate(heights)
        )
        good = not metric.better(quarter, value)
        style = style_of(trial, record)
        paths[style if style in paths else "quarter" if good else "rest"].append(path)
    return Parallel(
        axes,
        [(style, "".join(drawn)) for style, drawn in paths.items() if drawn],
        f"{len(compared)} trials across {len(ranges)} keys and {metric.title}; the table below "
        "has their values.",
        width=8.5 * len(axes),
    )


def _labels(one: Range) -> list[tuple[object, str]]:
    """Return the values of a key that its axis names: all choices, or both ends."""
    if one.choices:
        return [(choice, shortened(as_yaml(choice))) for choice in one.choices]
    return [(end, value_text(one.key, end)) for end in (one.low, one.high)]
