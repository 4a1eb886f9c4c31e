"""Drawings of a search: slices, parallel coordinates, curves over the training, the front.

Trials are compared by what all of them measured: see `importance`. Places on a horizontal axis are
shares of its length, since an axis may be logarithmic or of choices.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from etude.tuning.config.reference import as_yaml
from etude.tuning.metrics.metric import Metric
from etude.tuning.report.axis import Axis, Tick, linear_axis, logarithmic_axis
from etude.tuning.report.chart import (
    BOX,
    Chart,
    Drawing,
    Key,
    Mark,
    decimal_tick,
    exponent_tick,
)
from etude.tuning.search.ranges import Range
from etude.tuning.search.record import SearchRecord
from etude.tuning.search.settings import COSTS
from etude.tuning.search.trial import Trial
from etude.tuning.search.view import cost_text, value_text


@dataclass(frozen=True)
class Point:
    """A trial in a drawing."""

    trial: Trial
    x: float
    y: float
    text: str
    """Read out."""


def common_value(trial: Trial) -> float | None:
    """Return what all trials measured: the lowest rung, or the end without halving."""
    return trial.rungs[min(trial.rungs, key=int)] if trial.rungs else trial.value


def common_metric(record: SearchRecord) -> Metric:
    """Return the metric of `common_value`."""
    halved = any(trial.rungs for trial in record.trials)
    return (record.rung_metric or record.metric) if halved else record.metric


def common_place(record: SearchRecord) -> str:
    """Return where `common_value` was measured: `after 11 % of the training`."""
    rungs = [int(percent) for trial in record.trials for percent in trial.rungs]
    return f"after {min(rungs)} % of the training" if rungs else "at the end"


def slice_chart(one: Range, record: SearchRecord, *, name: str) -> Chart | None:
    """Draw the metric against the values of one key; None with fewer than two trials."""
    metric = common_metric(record)
    compared = [
        (trial, value)
        for trial in record.trials
        if one.key in trial.values and (value := common_value(trial)) is not None
    ]
    if len(compared) < 2:
        return None
    x_axis = value_axis(one)
    y_axis = linear_axis([value for _, value in compared], metric_tick(metric), count=4)
    points = [
        Point(
            trial,
            place_of(one, x_axis, trial.values[one.key]),
            value,
            f"trial {trial.number}, {value_text(one.key, trial.values[one.key])}",
        )
        for trial, value in compared
    ]
    return _scatter(
        f"slice-{name}", one.key, points, x_axis, y_axis, metric.text, record, unit=metric.title
    )


def front_chart(record: SearchRecord, cost: str) -> Chart | None:
    """Draw the metric against a cost, and the trials that no other beats in both."""
    finished = [trial for trial in record.trials if trial.objectives]
    values = [(trial, float(trial.figures.get(cost) or 0.0)) for trial in finished]
    if len(values) < 2:
        return None
    written = cost_text
    x_axis = linear_axis([value for _, value in values], lambda v, _d: written(cost, v), count=5)
    y_axis = linear_axis(
        [trial.objectives[0] for trial in finished], metric_tick(record.metric), count=4
    )
    points = [
        Point(
            trial,
            x_axis.position(value),
            trial.objectives[0],
            f"trial {trial.number}, {written(cost, value)}",
        )
        for trial, value in values
    ]
    on_front = sorted(
        (point for point in points if point.trial.number in record.selection.front),
        key=lambda point: (point.x, point.y),
    )
    return _scatter(
        f"front-{cost.replace('_', '-')}",
        f"{record.metric.title.capitalize()} against {COSTS[cost]}",
        points,
        x_axis,
        y_axis,
        record.metric.text,
        record,
        unit=record.metric.title,
        x_label=COSTS[cost],
        joined=on_front,
    )


def curves_chart(record: SearchRecord) -> Chart | None:
    """Draw what each trial measured along its training; None without halving."""
    metric = record.rung_metric or record.metric
    same = metric.name == record.metric.name
    curves: list[tuple[Trial, list[tuple[float, float]]]] = []
    for trial in record.trials:
        places = sorted((int(percent) / 100, value) for percent, value in trial.rungs.items())
        end = trial.value if same else trial.figures.get(metric.name)
        if end is not None:
            places.append((1.0, float(end)))
        if trial.rungs and places:
            curves.append((trial, places))
    if not curves:
        return None
    values = [value for _, places in curves for _, value in places]
    x_axis = linear_axis([0.0, 1.0], lambda v, _d: f"{100 * v:.0f} %", tight=True, count=5)
    y_axis = linear_axis(values, metric_tick(metric), count=5)
    paths: list[tuple[str, str]] = []
    for style in ("raw", "main", "default", "best"):
        drawn = [_line(p, x_axis, y_axis) for t, p in curves if style_of(t, record) == style]
        dots = [_dots(p, x_axis, y_axis) for t, p in curves if style_of(t, record) == style]
        if drawn:
            paths += [(style, "".join(drawn)), (f"{style}-dots", "".join(dots))]
    chosen = record.selection
    ends = {trial.number: places[-1] for trial, places in curves}
    marks = [
        _mark(x_axis.position(x), y_axis.position(y), label)
        for number, label in ((chosen.default, "default"), (chosen.best, "best"))
        if number in ends and not (label == "default" and chosen.best == number)
        for x, y in [ends[number]]
    ]
    order = sorted(curves, key=lambda curve: (len(curve[1]), curve[0].number))
    # Read out from the left: the trials in the order of how far they got.
    read = [
        (x, y, f"trial {trial.number} after {100 * x:.0f} %") for trial, p in order for x, y in p
    ]
    read.sort(key=lambda one: one[0])
    return Chart(
        id="curves",
        title="What trials measured along their training",
        unit=metric.title,
        x_label="share of the training",
        x_axis=x_axis,
        linear=Drawing(y_axis, paths, marks),
        logarithmic=None,
        keys=[Key("", "points", f"{len(curves)} trials")],
        at="",
        spoken=f"{metric.title} along the training of {len(curves)} trials.",
        points=_points(
            "curves",
            [x_axis.position(x) for x, _, _ in read],
            [text for _, _, text in read],
            [metric.text(y) for _, y, _ in read],
            [y_axis.position(y) for _, y, _ in read],
        ),
    )


def progress_chart(record: SearchRecord) -> Chart | None:
    """Draw finished trials, and the best so far, over the time that trials took."""
    done: list[tuple[float, Trial]] = []
    spent = 0.0
    for trial in record.trials:
        spent += trial.seconds
        if trial.objectives:
            done.append((spent / 60, trial))
    if len(done) < 2:
        return None
    values = [trial.objectives[0] for _, trial in done]
    x_axis = linear_axis([0.0, *(at for at, _ in done)], decimal_tick, tight=True, count=6)
    y_axis = linear_axis(values, metric_tick(record.metric), count=4)
    best: list[tuple[float, float]] = []
    for at, trial in done:
        value = trial.objectives[0]
        if not best or record.metric.better(value, best[-1][1]):
            if best:
                best.append((at, best[-1][1]))
            best.append((at, value))
    best.append((done[-1][0], best[-1][1]))
    points = [
        Point(trial, x_axis.position(at), trial.objectives[0], f"trial {trial.number}")
        for at, trial in done
    ]
    chart = _scatter(
        "progress",
        "The best so far",
        points,
        x_axis,
        y_axis,
        record.metric.text,
        record,
        unit=record.metric.title,
        x_label="minutes of work on trials, in the order in which they were begun",
    )
    steps = _line(best, x_axis, y_axis)
    chart.linear.paths.insert(0, ("main", steps))
    return chart


def value_axis(one: Range) -> Axis:
    """Return the axis of a key's values; choices stand at equal distances."""
    if one.choices:
        count = len(one.choices)
        ticks = tuple(
            Tick((index + 0.5) / count, shortened(as_yaml(choice)))
            for index, choice in enumerate(one.choices)
        )
        return Axis(-0.5, count - 0.5, ticks)
    assert one.low is not None
    assert one.high is not None
    ends = [one.low, one.high]
    if one.log and (axis := logarithmic_axis(ends, exponent_tick)) is not None:
        return axis
    return linear_axis(ends, lambda v, d: f"{v:.{min(d, 3)}f}", count=5)


def metric_tick(metric: Metric) -> Callable[[float, int], str]:
    """Return what formats a tick of a metric's axis."""
    if metric.format == "percent":
        return lambda value, decimals: f"{100 * value:.{max(0, decimals - 2)}f} %"
    return decimal_tick


def place_of(one: Range, axis: Axis, value: object) -> float:
    """Return where a key's value stands on its axis, 0 to 1."""
    number = one.choices.index(value) if one.choices else value
    return axis.position(number)  # pyright: ignore[reportArgumentType]


def shortened(text: str) -> str:
    """Return a choice's text, cut to what an axis has room for."""
    return text if len(text) <= 18 else f"{text[:17]}…"


def style_of(trial: Trial, record: SearchRecord) -> str:
    """Return the CSS class of a trial: `best`, `default`, `main` (finished) or `raw`."""
    if trial.number == record.selection.best:
        return "best"
    if trial.number == record.selection.default:
        return "default"
    return "main" if trial.objectives else "raw"


def _scatter(
    chart_id: str,
    title: str,
    points: Sequence[Point],
    x_axis: Axis,
    y_axis: Axis,
    written: Callable[[float | None], str],
    record: SearchRecord,
    *,
    unit: str,
    x_label: str = "",
    joined: Sequence[Point] = (),
) -> Chart:
    """Draw points, the default and the best marked and named."""
    points = sorted(points, key=lambda point: point.x)
    paths: list[tuple[str, str]] = []
    if len(joined) > 1:
        paths.append(
            (
                "main",
                "".join(
                    f"{'L' if index else 'M'}{BOX * p.x:.1f} {BOX * (1 - y_axis.position(p.y)):.1f}"
                    for index, p in enumerate(joined)
                ),
            )
        )
    marks: list[Mark] = []
    for style in ("points", "default-dots", "best-dots"):
        own = {"default-dots": "default", "best-dots": "best"}.get(style, "")
        drawn = [
            point
            for point in points
            if (style_of(point.trial, record) if own else "") == own
            and (own or style_of(point.trial, record) not in ("default", "best"))
        ]
        if drawn:
            path = "".join(
                f"M{BOX * p.x:.1f} {BOX * (1 - y_axis.position(p.y)):.1f}h0" for p in drawn
            )
            paths.append((style, path))
        if own:
            marks += [_mark(p.x, y_axis.position(p.y), own) for p in drawn]
    best = [point for point in points if point.trial.number == record.selection.best]
    summary = f"best {written(best[0].y)}" if best else f"{len(points)} trials"
    return Chart(
        id=chart_id,
        title=title,
        unit=unit,
        x_label=x_label,
        x_axis=x_axis,
        linear=Drawing(y_axis, paths, marks),
        logarithmic=None,
        keys=[Key("", "points", summary)],
        at="",
        spoken=f"{title}: {len(points)} trials, {summary}.",
        points=_points(
            chart_id,
            [point.x for point in points],
            [point.text for point in points],
            [written(point.y) for point in points],
            [y_axis.position(point.y) for point in points],
        ),
    )


def _points(
    group: str, x: list[float], at: list[str], text: list[str], heights: list[float]
) -> dict[str, object]:
    return {
        "group": group,
        "from": 0.0,
        "to": 1.0,
        "at": at,
        "lines": [
            {
                "x": [round(place, 4) for place in x],
                "text": text,
                "linear": [round(BOX * height) for height in heights],
                "log": None,
            }
        ],
    }


def _mark(x: float, y: float, label: str) -> Mark:
    anchor = "start" if x < 0.1 else "end" if x > 0.9 else "middle"
    return Mark(100 * x, 100 * (1 - y), label, f"{anchor} {label}")


def _line(places: Sequence[tuple[float, float]], x_axis: Axis, y_axis: Axis) -> str:
    return "".join(
        f"{'L' if index else 'M'}{BOX * x_axis.position(x):.1f} "
        f"{BOX * (1 - y_axis.position(y)):.1f}"
        for index, (x, y) in enumerate(places)
    )


def _dots(places: Sequence[tuple[float, float]], x_axis: Axis, y_axis: Axis) -> str:
    return "".join(
        f"M{BOX * x_axis.position(x):.1f} {BOX * (1 - y_axis.position(y)):.1f}h0" for x, y in places
    )


def importance_rows(record: SearchRecord) -> list[tuple[str, str, float]]:
    """Return (key, percentage as text, percentage) of each key, the most important first."""
    most = max(record.importance.values(), default=1.0) or 1.0
    return [
        (k, f"{100 * share:.0f} %", 100 * share / most) for k, share in record.importance.items()
    ]
