"""A line chart as an SVG file of its own: axes, names and title inside, nothing to load.

The charts of report.html are drawn by `chart.py`, whose labels are HTML; a figure that stands in a
page of documentation, or in a file of a user's own, carries its labels with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from etude.tuning.report.axis import Axis

COLORS = ("#2b5fa8", "#b4552d", "#2f7d5b", "#7a4f9a", "#8a6d1f", "#444444")
"""Of the lines, in order; each also has a dash pattern of its own."""

DASHES = ("", "7 4", "2 3", "9 3 2 3", "4 2", "1 2")

WIDTH, HEIGHT = 720, 380
LEFT, RIGHT, TOP, BOTTOM = 74, 20, 48, 52


@dataclass(frozen=True)
class Curve:
    """A named line: `y[i]` at `x[i]`; None is a gap."""

    name: str
    x: Sequence[float]
    y: Sequence[float | None]


@dataclass(frozen=True)
class Guide:
    """A vertical line at `x`, or a band from `x` to `until`, with a label at its top."""

    x: float
    label: str
    until: float | None = None


def svg_chart(
    title: str,
    curves: Sequence[Curve],
    axes: tuple[Axis, Axis],
    labels: tuple[str, str],
    *,
    guides: Sequence[Guide] = (),
) -> str:
    """Return the chart.

    Args:
        title: what it shows.
        curves: drawn in order; several have a legend.
        axes: horizontal and vertical; values beyond them are cut off.
        labels: of the two axes, with units.
        guides: drawn behind the curves.
    """
    x_axis, y_axis = axes
    legend = 20 * math.ceil(len(curves) / 3) if len(curves) > 1 else 0
    height, top = HEIGHT + legend, TOP + legend
    right, bottom = WIDTH - RIGHT, height - BOTTOM

    def across(value: float) -> float:
        return LEFT + (right - LEFT) * x_axis.position(value)

    def down(value: float) -> float:
        return bottom - (bottom - top) * y_axis.position(value)

    parts = [
        *_opening(title, WIDTH, height, LEFT),
        f'<clipPath id="plane"><rect x="{LEFT}" y="{top}" width="{right - LEFT}" '
        f'height="{bottom - top}"/></clipPath>',
    ]
    for guide in guides:
        x = across(guide.x)
        if guide.until is None:
            parts.append(
                f'<path d="M{x:.1f} {top}V{bottom}" stroke="#777" stroke-dasharray="3 3"/>'
            )
        else:
            width = across(guide.until) - x
            parts.append(
                f'<rect x="{x:.1f}" y="{top}" width="{width:.1f}" height="{bottom - top}" '
                'fill="#e6ecf5"/>'
            )
        parts.append(
            f'<text x="{x + 4:.1f}" y="{top + 14}" font-size="12" fill="#444">'
            f"{escape(guide.label)}</text>"
        )
    for tick in y_axis.ticks:
        y = bottom - (bottom - top) * tick.position
        parts.append(f'<path d="M{LEFT} {y:.1f}H{right}" stroke="#e2e2e2"/>')
        parts.append(
            f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end" fill="#444">'
            f"{escape(tick.label)}</text>"
        )
    for tick in x_axis.ticks:
        x = LEFT + (right - LEFT) * tick.position
        parts.append(f'<path d="M{x:.1f} {bottom}v5" stroke="#666"/>')
        parts.append(
            f'<text x="{x:.1f}" y="{bottom + 20}" text-anchor="middle" fill="#444">'
            f"{escape(tick.label)}</text>"
        )
    parts.append(f'<path d="M{LEFT} {bottom}H{right}" stroke="#666"/>')
    parts.append(
        f'<text x="{(LEFT + right) / 2}" y="{height - 10}" text-anchor="middle" fill="#444">'
        f"{escape(labels[0])}</text>"
    )
    parts.append(
        f'<text transform="translate(16 {(top + bottom) / 2}) rotate(-90)" text-anchor="middle" '
        f'fill="#444">{escape(labels[1])}</text>'
    )
    for number, curve in enumerate(curves):
        stroke = _stroke(number)
        parts.append(
            f'<path d="{_path(curve, across, down)}" fill="none" clip-path="url(#plane)" {stroke}/>'
        )
        if len(curves) > 1:
            x, y = LEFT + number % 3 * (right - LEFT) / 3, TOP + 20 * (number // 3) - 4
            parts.append(f'<path d="M{x:.1f} {y}h26" fill="none" {stroke}/>')
            parts.append(f'<text x="{x + 32:.1f}" y="{y + 4}">{escape(curve.name)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def svg_panels(
    title: str,
    curves: Sequence[Curve],
    axes: tuple[Axis, Axis],
    labels: tuple[str, str],
    *,
    columns: int = 3,
) -> str:
    """Return one small chart a curve, named above it, all on the same axes.

    Args:
        title: what they show.
        curves: in reading order.
        axes: horizontal and vertical, shared.
        labels: of the two axes, said once below the title.
        columns: charts a row.
    """
    x_axis, y_axis = axes
    width, tall, gap_x, gap_y, left, top = 200, 90, 30, 52, 40, 84
    rows = math.ceil(len(curves) / columns)
    whole = left + columns * width + (columns - 1) * gap_x + 20
    height = top + rows * tall + (rows - 1) * gap_y + 34
    parts = [
        *_opening(title, whole, height, left),
        f'<text x="{left}" y="46" fill="#444">{escape(labels[1])} over {escape(labels[0])}</text>',
    ]
    for number, curve in enumerate(curves):
        x0 = left + number % columns * (width + gap_x)
        y0 = top + number // columns * (tall + gap_y)

        def across(value: float, x0: int = x0) -> float:
            return x0 + width * x_axis.position(value)

        def down(value: float, y0: int = y0) -> float:
            return y0 + tall * (1 - y_axis.position(value))

        parts.append(
            f'<text x="{x0}" y="{y0 - 8}" font-weight="600" fill="#222">{escape(curve.name)}</text>'
        )
        for tick in (y_axis.ticks[0], y_axis.ticks[-1]):
            y = y0 + tall * (1 - tick.position)
            parts.append(f'<path d="M{x0} {y:.1f}h{width}" stroke="#ddd"/>')
            parts.append(
                f'<text x="{x0 - 5}" y="{y + 4:.1f}" text-anchor="end" font-size="11" '
                f'fill="#444">{escape(tick.label)}</text>'
            )
        for tick, anchor in ((x_axis.ticks[0], "start"), (x_axis.ticks[-1], "end")):
            x = x0 + width * tick.position
            parts.append(
                f'<text x="{x:.1f}" y="{y0 + tall + 15}" text-anchor="{anchor}" font-size="11" '
                f'fill="#444">{escape(tick.label)}</text>'
            )
        parts.append(f'<path d="{_path(curve, across, down)}" fill="none" {_stroke(0)}/>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _opening(title: str, width: float, height: float, left: float) -> list[str]:
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(title)}" font-family="system-ui, sans-serif" font-size="13">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        f'<text x="{left}" y="24" font-size="15" font-weight="600" fill="#222">'
        f"{escape(title)}</text>",
    ]


def _stroke(number: int) -> str:
    color, dash = COLORS[number % len(COLORS)], DASHES[number % len(DASHES)]
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return f'stroke="{color}" stroke-width="2" stroke-linejoin="round"{dashed}'


def _path(curve: Curve, across: Callable[[float], float], down: Callable[[float], float]) -> str:
    """Return SVG path data, interrupted at gaps."""
    path: list[str] = []
    pen = "M"
    for x, y in zip(curve.x, curve.y, strict=True):
        if y is None:
            pen = "M"
            continue
        path.append(f"{pen}{across(x):.1f} {down(y):.1f}")
        pen = "L"
    return "".join(path)
