"""From a run's metrics to the curves that are drawn: series over optimiser steps.

metrics.jsonl mixes two kinds of records: one a training step (`loss`, `lr`, `grad_norm`,
`tokens_per_s`, `rss`) and one an evaluation (`eval_loss`). Either may lack a number where it was
not finite.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

LONGEST_WINDOW = 10
"""Steps that the smoothed training loss averages over, about, in a run of 100 steps or more."""

BLOCKS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class Series:
    """One quantity over the steps at which it was recorded; None where it was not finite."""

    steps: list[int]
    values: list[float | None]

    def __bool__(self) -> bool:
        return any(value is not None for value in self.values)

    @property
    def finite(self) -> list[float]:
        """The values that are numbers."""
        return [value for value in self.values if value is not None]


def series(records: Sequence[dict[str, Any]], key: str) -> Series:
    """Return the quantity `key` of all records that have it, in order of steps.

    A step recorded twice (an evaluation repeated after a resume) counts once, the later record.
    """
    values = {int(record["step"]): record[key] for record in records if key in record}
    steps = sorted(values)
    return Series(steps, [values[step] for step in steps])


def smoothing(steps: int) -> float:
    """Return the weight of the past for a run of so many steps.

    The window is a tenth of the run, so that the curve of a short one does not lag behind it.
    """
    return 1 - 1 / min(LONGEST_WINDOW, max(1.0, steps / 10))


def smooth(values: Sequence[float | None], weight: float) -> list[float | None]:
    """Return the exponential moving average, corrected for its start at zero.

    y_t = Σ w^(t-i) x_i / Σ w^(t-i) over the finite x_i: the first value is the first loss, not a
    tenth of it (Kingma and Ba 2015, section 3). It is None until a finite value was seen.

    Args:
        values: in order of steps.
        weight: of the past, w; the window is about 1 / (1 - w) steps.
    """
    total = norm = 0.0
    smoothed: list[float | None] = []
    for value in values:
        if value is not None:
            total = weight * total + value
            norm = weight * norm + 1.0
        smoothed.append(total / norm if norm else None)
    return smoothed


def thin(values: Sequence[float | None], limit: int) -> list[int]:
    """Return the indices of at most `limit` values to draw, such that no spike is lost.

    Each of `limit / 2` equal stretches keeps its least and its greatest value; first and last
    stay.
    """
    count = len(values)
    if count <= limit:
        return list(range(count))
    kept = {0, count - 1}
    stretches = max(1, limit // 2 - 1)
    for stretch in range(stretches):
        indices = range(stretch * count // stretches, (stretch + 1) * count // stretches)
        finite = [index for index in indices if values[index] is not None]
        if not finite:
            kept.add(indices[0])
            continue
        kept.add(min(finite, key=lambda index: values[index] or 0.0))
        kept.add(max(finite, key=lambda index: values[index] or 0.0))
    return sorted(kept)


def sparkline(values: Sequence[float | None], width: int) -> str:
    """Return the values as a row of at most `width` blocks, each the mean of its stretch."""
    finite = [value for value in values if value is not None]
    if not finite or width < 1:
        return ""
    width = min(width, len(finite))
    means = [
        sum(stretch) / len(stretch)
        for index in range(width)
        if (stretch := finite[index * len(finite) // width : (index + 1) * len(finite) // width])
    ]
    low, high = min(means), max(means)
    span = high - low or 1.0
    return "".join(BLOCKS[round((mean - low) / span * (len(BLOCKS) - 1))] for mean in means)
