"""Metric series over optimiser steps, smoothing and thinning.

metrics.jsonl contains two kinds of records: one per training step (`loss`, `lr`, `grad_norm`,
`tokens_per_s`, `rss`) and one per evaluation (`eval_loss`). Values that were not finite are
missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

LONGEST_WINDOW = 10
"""Approximate window of the smoothed training loss, in runs of at least 100 steps."""

BLOCKS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class Series:
    """A quantity over its recorded steps; None where it was not finite."""

    steps: list[int]
    values: list[float | None]

    def __bool__(self) -> bool:
        return any(value is not None for value in self.values)

    @property
    def finite(self) -> list[float]:
        """The finite values."""
        return [value for value in self.values if value is not None]


def series(records: Sequence[dict[str, Any]], key: str) -> Series:
    """Return the quantity `key` of all records that contain it, in step order.

    A step recorded twice (an evaluation repeated after a resume) counts once, the later record.
    """
    values = {int(record["step"]): record[key] for record in records if key in record}
    steps = sorted(values)
    return Series(steps, [values[step] for step in steps])


def smoothing(steps: int) -> float:
    """Return the smoothing weight for a run of `steps` steps.

    The window is at most a tenth of the run, so that short curves do not lag.
    """
    return 1 - 1 / min(LONGEST_WINDOW, max(1.0, steps / 10))


def thin(values: Sequence[float | None], limit: int) -> list[int]:
    """Return the indices of at most `limit` values to draw, preserving spikes.

    Each of `limit / 2` equal ranges keeps its smallest and its largest value, and the first and
    last value are kept.
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
    """Return the values as a row of at most `width` blocks, each the mean of its range."""
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
