"""SVG charts: complete without JavaScript, sharp at any width, a few kilobytes each.

A drawing is stretched to its box (SVG with `preserveAspectRatio="none"` and non-scaling strokes);
its labels are HTML, positioned in percent, so text keeps its size on a phone. If a logarithmic
scale makes sense the page has both drawings, and a checkbox switches between them by CSS alone.

The formatted values of each point are stored beside the drawing as JSON, for the script that shows
them under the pointer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from etude.tuning.report.axis import Axis, linear_axis, logarithmic_axis
from etude.tuning.report.series import thin

POINTS = 600
"""Maximum number of points of a line: more than a screen can resolve."""

BOX = 1000
"""Side of the drawing's coordinate system."""


@dataclass(frozen=True)
class Line:
    """A line: `y[i]` at `x[i]`, None if it was not finite."""

    name: str
    style: str
    """CSS class: `raw`, `main`, `dots`, or `run-0` to `run-5`."""

    x: Sequence[float]
    y: Sequence[float | None]
    written: Callable[[float | None], str]
    """Formats a value for the read-out."""


@dataclass(frozen=True)
class Mark:
    """A value label beside its point; `left` and `top` in percent."""

    left: float
    top: float
    text: str
    anchor: str
    """CSS class: `start`, `middle` or `end`."""


@dataclass(frozen=True)
class Drawing:
    """The part of a chart that depends on the scale of the vertical axis."""

    axis: Axis
    paths: list[tuple[str, str]]
    """CSS class and SVG path data."""

    marks: list[Mark] = field(default_factory=list[Mark])


@dataclass(frozen=True)
class Key:
    """An entry of the legend and read-out: a value, with a name if there are several."""

    name: str
    style: str
    value: str


@dataclass(frozen=True)
class Chart:
    """Data of a chart for the template."""

    id: str
    title: str
    unit: str
    x_label: str
    x_axis: Axis
    linear: Drawing
    logarithmic: Drawing | None
    keys: list[Key]
    at: str
    """Position of the values in `keys`: `step 320`."""

    spoken: str
    """One-sentence description for screen readers."""

    points: dict[str, Any]
    """Data for the script; see `report.js`."""


def line_chart(
    chart_id: str,
    title: str,
    lines: Sequence[Line],
    *,
    unit: str,
    tick: Callable[[float, int], str],
    from_zero: bool = False,
    log_scale: bool = False,
) -> Chart | None:
    """Draw quantities over optimiser steps; None if no line has a finite value.

    Args:
        chart_id: element id in the page.
        title: displayed title.
        lines: drawn in order, the first at the bottom.
        unit: of the vertical axis.
        tick: formats a tick's value, given its number of decimals.
        from_zero: whether the vertical axis starts at zero.
        log_scale: also draw it on a logarithmic scale, if all values are positive.
    """
    lines = [_thinned(line) for line in lines if any(value is not None for value in line.y)]
    if not lines:
        return None
    steps = [x for line in lines for x in line.x]
    values = [value for line in lines for value in line.y if value is not None]
    x_axis = linear_axis([0, *steps], _whole, tight=True, count=8)
    scales = [
        linear_axis(values, tick, from_zero=from_zero),
        logarithmic_axis(values, tick) if log_scale else None,
    ]
    drawings = [_draw(lines, x_axis, scale) if scale else None for scale in scales]
    linear, logarithmic = drawings
    assert linear is not None
    last = int(max(steps))
    return Chart(
        id=chart_id,
        title=title,
        unit=unit,
        x_label="optimiser step",
        x_axis=x_axis,
        linear=linear,
        logarithmic=logarithmic,
        # A single line is named by the title.
        keys=[
            Key(line.name if len(lines) > 1 else "", line.style, _last_value(line, last))
            for line in lines
        ],
        at=f"step {last:,}",
        spoken=f"{title} over {last:,} steps: " + "; ".join(map(_in_words, lines)) + ".",
        points={
            "group": "step",
            "from": x_axis.low,
            "to": x_axis.high,
            "prefix": "step ",
            "lines": [
                {
                    "x": list(line.x),
                    "text": [line.written(value) for value in line.y],
                    "linear": _heights(line.y, linear.axis),
                    "log": _heights(line.y, logarithmic.axis) if logarithmic else None,
                }
                for line in lines
            ],
        },
    )


def histogram(
    chart_id: str, title: str, edges: Sequence[int], counts: Sequence[int], *, unit: str
) -> Chart | None:
    """Draw a histogram of the ranges `edges[i]` < x ≤ `edges[i + 1]`; None without samples."""
    if not counts or not any(counts) or len(edges) != len(counts) + 1:
        return None
    # Integers: the first range contains its lower edge, so its bar starts before it.
    bounds = [edges[0] - 1, *edges[1:]]
    x_axis = linear_axis(bounds, _whole, tight=True, count=8)
    y_axis = linear_axis(counts, _whole, from_zero=True, count=4)
    gap = (bounds[-1] - bounds[0]) * 0.002
    bars = "".join(
        f"M{_x(x_axis, low + gap)} {BOX}V{_y(y_axis, count)}H{_x(x_axis, high - gap)}V{BOX}z"
        for (low, high), count in zip(pairwise(bounds), counts, strict=True)
        if count
    )
    ranges = [f"{low + 1:,}–{high:,} {unit}" for low, high in pairwise(bounds)]
    most = max(range(len(counts)), key=lambda index: counts[index])
    total = sum(counts)
    return Chart(
        id=chart_id,
        title=title,
        unit="samples",
        x_label=f"{unit} in a sample",
        x_axis=x_axis,
        linear=Drawing(y_axis, [("bars", bars)]),
        logarithmic=None,
        keys=[Key("", "bars", f"{counts[most]:,}")],
        at=ranges[most],
        spoken=f"{title}: {total:,} samples, most of them ({counts[most]:,}) with {ranges[most]}.",
        points={
            "group": chart_id,
            "from": x_axis.low,
            "to": x_axis.high,
            "at": ranges,
            "lines": [
                {
                    "x": [(low + high) / 2 for low, high in pairwise(bounds)],
                    "text": [f"{count:,}" for count in counts],
                    "linear": _heights(counts, y_axis),
                    "log": None,
                }
            ],
        },
    )


def plane_chart(
    chart_id: str,
    title: str,
    line: Line,
    *,
    unit: str,
    x_label: str,
    at: Sequence[str],
    axes: tuple[Axis, Axis],
    summary: str,
    diagonal: bool = False,
) -> Chart:
    """Draw one quantity against another, as a line (`main`) or as points (`dots`, `points`).

    Args:
        chart_id: element id in the page.
        title: displayed title.
        line: `x` ascending, all values known.
        unit: of the vertical axis.
        x_label: of the horizontal axis.
        at: read-out of each place on the horizontal axis.
        axes: horizontal and vertical.
        summary: value shown until a point is read out.
        diagonal: whether to draw the line y = x.
    """
    x_axis, y_axis = axes
    known = [(x, y) for x, y in zip(line.x, line.y, strict=True) if y is not None]
    drawn = _path(line, x_axis, y_axis)
    if line.style != "main":
        drawn = "".join(f"M{_x(x_axis, x)} {_y(y_axis, y)}h0" for x, y in known)
    paths = [(line.style, drawn)]
    if line.style == "dots":
        paths.insert(0, ("joint", _path(line, x_axis, y_axis)))
    if diagonal:
        low, high = max(x_axis.low, y_axis.low), min(x_axis.high, y_axis.high)
        ideal = f"M{_x(x_axis, low)} {_y(y_axis, low)}L{_x(x_axis, high)} {_y(y_axis, high)}"
        paths.insert(0, ("ideal", ideal))
    return Chart(
        id=chart_id,
        title=title,
        unit=unit,
        x_label=x_label,
        x_axis=x_axis,
        linear=Drawing(y_axis, paths),
        logarithmic=None,
        keys=[Key("", line.style, summary)],
        at="",
        spoken=f"{title}: {summary}.",
        points={
            "group": chart_id,
            "from": x_axis.low,
            "to": x_axis.high,
            "at": list(at),
            "lines": [
                {
                    "x": list(line.x),
                    "text": [line.written(value) for value in line.y],
                    "linear": _heights(line.y, y_axis),
                    "log": None,
                }
            ],
        },
    )


def bar_chart(
    chart_id: str,
    title: str,
    edges: Sequence[float],
    counts: Sequence[int],
    *,
    x_label: str,
    tick: Callable[[float, int], str],
    summary: str,
) -> Chart:
    """Draw how many of real numbers lie between `edges[i]` and `edges[i + 1]`."""
    x_axis = linear_axis(edges, tick, tight=True, count=6)
    y_axis = linear_axis(counts, _whole, from_zero=True, count=4)
    gap = (edges[-1] - edges[0]) * 0.002
    bars = "".join(
        f"M{_x(x_axis, low + gap)} {BOX}V{_y(y_axis, count)}H{_x(x_axis, high - gap)}V{BOX}z"
        for (low, high), count in zip(pairwise(edges), counts, strict=True)
        if count
    )
    return Chart(
        id=chart_id,
        title=title,
        unit="samples",
        x_label=x_label,
        x_axis=x_axis,
        linear=Drawing(y_axis, [("bars", bars)]),
        logarithmic=None,
        keys=[Key("", "bars", summary)],
        at="",
        spoken=f"{title}: {sum(counts):,} samples, {summary}.",
        points={
            "group": chart_id,
            "from": x_axis.low,
            "to": x_axis.high,
            "at": [f"{low:.3g} to {high:.3g}" for low, high in pairwise(edges)],
            "lines": [
                {
                    "x": [(low + high) / 2 for low, high in pairwise(edges)],
                    "text": [f"{count:,}" for count in counts],
                    "linear": _heights(counts, y_axis),
                    "log": None,
                }
            ],
        },
    )


def percent_tick(value: float, _decimals: int) -> str:
    """Format a tick of a share: `40 %`."""
    return f"{100 * value:.0f} %"


def decimal_tick(value: float, decimals: int) -> str:
    """Format a tick as a plain number."""
    return f"{value:,.{max(0, decimals)}f}"


def exponent_tick(value: float, _decimals: int) -> str:
    """Format a tick in exponent notation: `8e-4`."""
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.3e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def _thinned(line: Line) -> Line:
    kept = thin(line.y, POINTS)
    return Line(
        line.name, line.style, [line.x[i] for i in kept], [line.y[i] for i in kept], line.written
    )


def _draw(lines: Sequence[Line], x_axis: Axis, y_axis: Axis) -> Drawing:
    paths: list[tuple[str, str]] = []
    marks: list[Mark] = []
    for line in lines:
        path = _path(line, x_axis, y_axis)
        if line.style == "dots":
            paths.append(("joint", path))
            known = [(x, y) for x, y in zip(line.x, line.y, strict=True) if y is not None]
            # A zero-length line with round caps is a dot that is not stretched.
            dots = "".join(f"M{_x(x_axis, x)} {_y(y_axis, y)}h0" for x, y in known)
            paths.append(("dots", dots))
            marks += _marks(known, line, x_axis, y_axis)
        else:
            paths.append((line.style, path))
    return Drawing(y_axis, paths, marks)


def _path(line: Line, x_axis: Axis, y_axis: Axis) -> str:
    """Return SVG path data, interrupted at values that are not finite."""
    path: list[str] = []
    pen = "M"
    for x, y in zip(line.x, line.y, strict=True):
        if y is None:
            pen = "M"
            continue
        path.append(f"{pen}{_x(x_axis, x)} {_y(y_axis, y)}")
        pen = "L"
    return "".join(path)


def _marks(
    known: Sequence[tuple[float, float]], line: Line, x_axis: Axis, y_axis: Axis
) -> list[Mark]:
    """Label the first, the smallest and the last value."""
    least = min(range(len(known)), key=lambda index: known[index][1])
    marks: list[Mark] = []
    for index in sorted({0, least, len(known) - 1}):
        x, y = known[index]
        left = 100 * x_axis.position(x)
        # The label of the smallest value would overlap that of the last.
        if 0 < index == least != len(known) - 1 and left > 85:
            continue
        anchor = "start" if left < 10 else "end" if left > 90 else "middle"
        marks.append(Mark(left, 100 * (1 - y_axis.position(y)), line.written(y), anchor))
    return marks


def _heights(values: Sequence[float | None], axis: Axis) -> list[int | None]:
    return [None if value is None else round(BOX * axis.position(value)) for value in values]


def _last_value(line: Line, step: int) -> str:
    """Format a line's last value, with its step if it ended before the others."""
    early = f" at {line.x[-1]:,.0f}" if line.x[-1] != step else ""
    return line.written(line.y[-1]) + early


def _in_words(line: Line) -> str:
    known = [value for value in line.y if value is not None]
    return f"{line.name} from {line.written(known[0])} to {line.written(known[-1])}"


def _whole(value: float, _decimals: int) -> str:
    return f"{value:,.0f}"


def _x(axis: Axis, value: float) -> str:
    return f"{BOX * axis.position(value):.1f}".removesuffix(".0")


def _y(axis: Axis, value: float) -> str:
    return f"{BOX * (1 - axis.position(value)):.1f}".removesuffix(".0")
