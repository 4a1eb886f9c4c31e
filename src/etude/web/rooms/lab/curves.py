"""Curves as SVG and as tables: what a page shows before, and without, its script."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from etude.app.run_series import Points, RunSeries, read_series
from etude.core import units
from etude.tuning.report.series import thin
from etude.tuning.runs.folder import RunFolder

WIDTH, HEIGHT = 640, 180
"""Of a drawing, in its own units."""

ROWS = 12
"""Of the table below it."""

DRAWN = 400
"""Points of a drawn line."""

_TITLES: dict[str, tuple[str, str, Callable[[float | None], str]]] = {
    "loss": ("Training loss", "", units.loss),
    "eval_loss": ("Evaluation loss", "", units.loss),
    "lr": ("Learning rate", "", units.rate),
    "grad_norm": ("Gradient norm", "before clipping", units.loss),
    "tokens_per_s": ("Speed", "tokens a second", units.number),
    "rss": ("Memory", "of the process", units.size),
    "peak_gpu_memory": ("GPU memory", "its peak so far", units.size),
}


@dataclass(frozen=True)
class DrawnLine:
    """A line of a drawing."""

    name: str
    path: str
    """SVG path data."""
    dots: list[tuple[float, float]]
    """Of lines of few points, which are measurements and no trend."""


@dataclass(frozen=True)
class Curve:
    """A chart of one quantity."""

    name: str
    title: str
    unit: str
    lines: list[DrawnLine]
    low: str
    high: str
    """The scale's ends."""
    first_step: int
    last_step: int
    last: str
    """The latest value."""
    rows: list[tuple[int, list[str]]]
    """Step, and the value of each line."""


def run_curves(series: RunSeries) -> list[Curve]:
    """Return the charts of one run; training and evaluation loss are one."""
    found: list[Curve] = []
    for name, points in series.points.items():
        if name == "eval_loss":
            continue
        together = {name: points}
        if name == "loss" and "eval_loss" in series.points:
            together["eval_loss"] = series.points["eval_loss"]
        if (curve := _curve(name, together)) is not None:
            found.append(curve)
    if "loss" not in series.points and "eval_loss" in series.points:
        only = _curve("eval_loss", {"eval_loss": series.points["eval_loss"]})
        found += [only] if only is not None else []
    order = list(_TITLES)
    return sorted(found, key=lambda c: order.index(c.name) if c.name in order else len(order))


def compared_curves(folders: Sequence[RunFolder]) -> list[Curve]:
    """Return charts of losses with a line for each run.

    Raises:
        RunError: a file of one is damaged.
    """
    series = {folder.name: read_series(folder) for folder in folders}
    found: list[Curve] = []
    for name in ("loss", "eval_loss"):
        lines = {run: one.points[name] for run, one in series.items() if name in one.points}
        if (curve := _curve(name, lines)) is not None:
            found.append(curve)
    return found


def _curve(name: str, lines: dict[str, Points]) -> Curve | None:
    """Draw lines on one scale; None where no value is finite."""
    finite = [value for points in lines.values() for value in points.values if value is not None]
    if not finite:
        return None
    title, unit, written = _TITLES.get(name, (name.replace("_", " "), "", units.loss))
    low, high = min(finite), max(finite)
    first = min(points.steps[0] for points in lines.values() if points.steps)
    last = max(points.steps[-1] for points in lines.values() if points.steps)

    def place(step: int, value: float) -> tuple[float, float]:
        across = (step - first) / (last - first) if last > first else 0.5
        up = (value - low) / (high - low) if high > low else 0.5
        return round(across * WIDTH, 1), round(HEIGHT * (1 - up), 1)

    drawn: list[DrawnLine] = []
    for line, points in lines.items():
        kept = thin(points.values, DRAWN)
        places = [
            place(points.steps[i], value) for i in kept if (value := points.values[i]) is not None
        ]
        path = " ".join(f"{'M' if n == 0 else 'L'}{x} {y}" for n, (x, y) in enumerate(places))
        drawn.append(DrawnLine(line, path, places if len(places) <= 30 else []))
    main = next(iter(lines.values()))
    latest = next((value for value in reversed(main.values) if value is not None), None)
    return Curve(
        name,
        title,
        unit,
        drawn,
        written(low),
        written(high),
        first,
        last,
        written(latest),
        _rows(lines, written),
    )


def _rows(
    lines: dict[str, Points], written: Callable[[float | None], str]
) -> list[tuple[int, list[str]]]:
    by_step = [dict(zip(points.steps, points.values, strict=True)) for points in lines.values()]
    steps = sorted({step for values in by_step for step in values})
    count = len(steps)
    kept = sorted({round(i * (count - 1) / max(1, ROWS - 1)) for i in range(min(ROWS, count))})
    # Evaluations are few: none of them is left out for a step between them.
    few = {step for values in by_step if len(values) <= ROWS for step in values}
    chosen = sorted({steps[i] for i in kept} | few)
    return [
        (step, [written(values[step]) if step in values else "" for values in by_step])
        for step in chosen
    ]
