"""What the runs of a cross-validation come to: each metric's mean, spread and interval.

With n folds whose values have the standard deviation s, held out and trained on in the ratio q:

    standard error  s √(1/n + q)        the corrected resampled t (Nadeau and Bengio 2003)
    95 % interval   mean ± t(0.975, n − 1) times that

The folds share most of their training data, so their values depend on each other, and s/√n is too
small; q is the correction for it. All of it is read from the runs' own files.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from etude.core.errors import RunError
from etude.tuning.cross_validation.student_t import quantile
from etude.tuning.metrics.metric import Metric, metrics_of
from etude.tuning.runs.folder import RunFolder, list_runs
from etude.tuning.runs.states import RunState


@dataclass(frozen=True)
class Division:
    """How the data are divided: the content of folds.json."""

    folds: int
    """Parts, each of which is held out once."""
    repeats: int = 1
    """Divisions, each with its own seed."""

    @property
    def runs(self) -> list[tuple[int, int]]:
        """(repeat, number) of every run, from 1."""
        return [
            (repeat, number)
            for repeat in range(1, self.repeats + 1)
            for number in range(1, self.folds + 1)
        ]

    @classmethod
    def read(cls, folder: RunFolder) -> Division:
        """Read folds.json.

        Raises:
            RunError: it is missing or damaged.
        """
        content: Any = folder.read_json(folder.folds.name)
        try:
            return cls(int(content["folds"]), int(content["repeats"]))
        except (TypeError, KeyError, ValueError) as error:
            raise RunError(f"{folder.folds} is damaged: {error}") from None


@dataclass(frozen=True)
class Fold:
    """The run of a fold."""

    repeat: int
    number: int
    """Both from 1."""
    run: RunFolder | None
    """None: not begun."""
    state: RunState | None
    summary: dict[str, Any] = field(default_factory=dict[str, Any])
    """Of a finished run; else empty."""
    trained: int = 0
    held_out: int = 0
    """Samples."""


@dataclass(frozen=True)
class Spread:
    """A metric over the folds."""

    metric: Metric
    count: int
    """Of finished folds."""
    mean: float
    deviation: float
    """Standard deviation, of a sample."""
    error: float
    """Standard error of the mean, corrected for what the folds share."""
    low: float
    high: float
    """Bounds of the 95 % interval."""
    before: float | None
    """Mean before training; None where that was not measured."""

    def as_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {**asdict(self), "metric": self.metric.name}


def run_name(repeat: int, number: int) -> str:
    """Return what the name of a fold's run begins with."""
    return f"fold-{repeat:02}-{number:02}"


def run_of(base: Any, repeat: int, number: int) -> RunFolder | None:
    """Return the run of a fold; of several, the last that was begun."""
    name = f"{run_name(repeat, number)}-"
    found = [run for run in list_runs(base) if run.path.name.startswith(name)]
    return found[-1] if found else None


def read_folds(folder: RunFolder, division: Division) -> list[Fold]:
    """Return every fold, in order.

    Raises:
        RunError: a file of a finished run is damaged.
    """
    found: list[Fold] = []
    for repeat, number in division.runs:
        run = run_of(folder.path / "trials", repeat, number)
        state = None if run is None else run.state
        if run is None or state != "finished":
            found.append(Fold(repeat, number, run, state))
            continue
        data: dict[str, Any] = run.read_json(run.data.name) or {}
        totals: dict[str, Any] = data.get("totals", {})
        found.append(
            Fold(
                repeat,
                number,
                run,
                state,
                run.read_json(run.summary.name) or {},
                int(totals.get("training samples", 0)),
                int(totals.get("evaluation samples", 0)),
            )
        )
    return found


def spreads(folds: Sequence[Fold]) -> list[Spread]:
    """Return the spread of each metric over the finished folds; none of fewer than two."""
    ended = [fold for fold in folds if fold.summary]
    if len(ended) < 2:
        return []
    ratio = sum(fold.held_out for fold in ended) / max(1, sum(fold.trained for fold in ended))
    found: list[Spread] = []
    for metric in metrics_of(ended[0].summary, ""):
        values = [fold.summary.get(metric.name) for fold in ended]
        before = [fold.summary.get(f"{metric.name}_before") for fold in ended]
        if all(isinstance(value, int | float) for value in values):
            found.append(_spread(metric, np.array(values, dtype=np.float64), before, ratio))
    return found


def _spread(metric: Metric, values: Any, before: Sequence[float | None], ratio: float) -> Spread:
    count = len(values)
    mean, deviation = float(values.mean()), float(values.std(ddof=1))
    error = deviation * math.sqrt(1 / count + ratio)
    half = quantile(0.975, count - 1) * error
    known = [value for value in before if value is not None]
    return Spread(
        metric,
        count,
        mean,
        deviation,
        error,
        mean - half,
        mean + half,
        sum(known) / count if len(known) == count else None,
    )
