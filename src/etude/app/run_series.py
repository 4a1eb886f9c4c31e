"""Curves of a run, read as its metrics.jsonl grows, thinned to what can be drawn.

The cursor is a position of `run_news`: whoever drew these curves follows the stream from there.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from etude.app.run_news import read_after
from etude.core.errors import RunError

if TYPE_CHECKING:
    from etude.tuning.runs.folder import RunFolder

LIMIT = 2000
"""Points of a series that are returned."""

TAIL = 200
"""Points at the end of a series that are never left out."""

RATE_STEPS = 20
"""Recent steps by which the remaining time is estimated."""

_NOT_DRAWN = ("step", "total_steps", "epoch", "tokens", "trained_tokens", "seconds")


@dataclass(frozen=True)
class Points:
    """One quantity by step; None where it was not finite."""

    steps: list[int] = field(default_factory=list[int])
    values: list[float | None] = field(default_factory=list[float | None])


@dataclass(frozen=True)
class RunSeries:
    """What was recorded since a cursor."""

    cursor: str
    """To be given at the next call."""
    reset: bool
    """Whether the points replace all earlier ones; otherwise they follow them."""
    points: dict[str, Points]
    """By name: `loss`, `eval_loss`, `lr`, `grad_norm`, `tokens_per_s`, `rss` (bytes), ..."""
    step: int
    """The last recorded."""
    total_steps: int | None
    epoch: float | None
    seconds: float | None
    """Of training, up to that step."""
    seconds_left: float | None
    """By the speed of the last steps; None before the second."""

    def as_json(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


def read_series(folder: RunFolder, cursor: str | None = None, *, limit: int = LIMIT) -> RunSeries:
    """Return the curves of a run, or what has been added to them.

    Args:
        folder: of the run.
        cursor: of the call before; None reads from the beginning.
        limit: points of a series at most: of each stretch its smallest and largest value are kept,
            and of the last points all.

    Raises:
        RunError: a line is not JSON, by its number.
    """
    lines = read_after(folder.metrics, cursor or "")
    records = _records(lines.content, folder.metrics, 1 if lines.anew else None)
    latest = records if lines.anew else _last_records(folder.metrics)
    timed = [record for record in latest if "seconds" in record]
    last = timed[-1] if timed else {}
    return RunSeries(
        cursor=lines.position(len(lines.content)),
        reset=lines.anew,
        points={name: _thinned(points, limit) for name, points in _points(records).items()},
        step=int(last.get("step", 0)),
        total_steps=last.get("total_steps"),
        epoch=last.get("epoch"),
        seconds=last.get("seconds"),
        seconds_left=_seconds_left(timed),
    )


def _records(content: bytes, file: Path, first_line: int | None) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = []
    for number, line in enumerate(content.splitlines()):
        try:
            record: Any = json.loads(line)
        except ValueError:
            record = None
        if not isinstance(record, dict) or not isinstance(
            cast("dict[str, Any]", record).get("step"), int
        ):
            where = "" if first_line is None else f", line {first_line + number}"
            raise RunError(f"{file}{where}: not a record of a step")
        records.append(cast("dict[str, Any]", record))
    return records


def _last_records(file: Path, size: int = 16_384) -> list[dict[str, Any]]:
    """Return the last records, some twenty at least."""
    if not file.exists():
        return []
    with file.open("rb") as metrics:
        end = metrics.seek(0, 2)
        metrics.seek(max(0, end - size))
        content = metrics.read(size)
    if end > size:
        content = content.partition(b"\n")[2]
    return _records(content[: content.rfind(b"\n") + 1], file, None)


def _points(records: Sequence[dict[str, Any]]) -> dict[str, Points]:
    """Return every quantity; a step recorded twice counts once, by the later record."""
    from etude.tuning.report.series import series

    names = dict.fromkeys(
        name
        for record in records
        for name, value in record.items()
        if name not in _NOT_DRAWN and (value is None or isinstance(value, int | float))
    )
    found = {name: series(cast("list[dict[str, Any]]", records), name) for name in names}
    return {name: Points(one.steps, one.values) for name, one in found.items()}


def _thinned(points: Points, limit: int) -> Points:
    from etude.tuning.report.series import thin

    count = len(points.steps)
    if count <= limit:
        return points
    tail = min(TAIL, limit // 2)
    kept = [*thin(points.values[: count - tail], limit - tail), *range(count - tail, count)]
    return Points([points.steps[i] for i in kept], [points.values[i] for i in kept])


def _seconds_left(timed: Sequence[dict[str, Any]]) -> float | None:
    recent = timed[-RATE_STEPS - 1 :]
    if len(recent) < 2:
        return None
    first, last = recent[0], recent[-1]
    steps = int(last["step"]) - int(first["step"])
    total: Any = last.get("total_steps")
    if steps <= 0 or not isinstance(total, int):
        return None
    return (total - int(last["step"])) * (float(last["seconds"]) - float(first["seconds"])) / steps
