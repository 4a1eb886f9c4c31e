"""What rows contain, and whether it was read: columns, keys of messages, turns.

A format reads the columns that it knows. All others are counted, with the rows they are in: a
system prompt in a column that nothing reads, or a mark on a message that nothing honours, would
otherwise be lost without a word.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

from etude.tuning.data.columns import WatchedColumns
from etude.tuning.data.counts import Tally
from etude.tuning.data.schema import RowFields, Sample
from etude.tuning.data.sources.registry import Row

TRAILING = "turns after the last trained answer"

_MOST = 12
"""Names in one note."""


def accounted(read: Callable[[Row], Sample]) -> Callable[[Row], Sample]:
    """Return the reader of rows `read`, its samples with what was read and what was not."""
    known: dict[tuple[tuple[str, ...], tuple[str, ...]], RowFields] = {}

    def reading(row: Row) -> Sample:
        columns = WatchedColumns(row.values)
        sample = read(Row(row.origin, columns))
        found = _read_and_not(columns, sample)
        # Rows are alike: one object for all that are.
        return replace(sample, fields=known.setdefault(found, RowFields(*found)))

    return reading


def _read_and_not(
    columns: WatchedColumns, sample: Sample
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    read: list[str] = []
    unread: list[str] = []
    for name, value in columns.items():
        if name in columns.used:
            read.append(f"column {name!r}")
            continue
        paths = sorted(path for path in columns.used if path.startswith(f"{name}."))
        if not paths:
            # A null says nothing; tables have one wherever a row lacks a column.
            if value is not None:
                unread.append(f"column {name!r}")
            continue
        read += [f"column {path!r}" for path in paths]
        inner: Mapping[str, Any] = (
            cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}
        )
        unread += [
            f"column {f'{name}.{key}'!r}"
            for key, held in inner.items()
            if held is not None and not any(f"{p}.".startswith(f"{name}.{key}.") for p in paths)
        ]
    turns = (*sample.messages, *sample.rejected[sample.context :])
    read += dict.fromkeys(name for turn in turns for name in turn.read)
    unread += dict.fromkeys(name for turn in turns for name in turn.unread)
    if any(_trails(side) for side in sample.sides()):
        unread.append(TRAILING)
    return tuple(read), tuple(unread)


def _trails(side: Sample) -> bool:
    """Whether turns follow the last answer that is trained."""
    places = [n for n, t in enumerate(side.messages) if t.role == "assistant" and t.trained]
    return bool(places) and places[-1] < len(side.messages) - 1


@dataclass
class Account:
    """Columns, keys of messages and turns of many rows, and rows that were refused."""

    rows: int = 0
    read: Counter[str] = field(default_factory=Counter[str])
    """Rows by what was read in them."""

    unread: dict[str, Tally] = field(default_factory=dict[str, Tally])
    """Rows by what was not read in them."""

    files: Counter[str] = field(default_factory=Counter[str])
    """Rows by the file that they are of."""

    refused: Tally = field(default_factory=Tally)
    """Rows that are no sample."""

    reasons: list[str] = field(default_factory=list[str])
    """Why the first of them was refused."""

    def add(self, sample: Sample) -> None:
        """Count a sample."""
        self.rows += 1
        self.files[sample.origin.rpartition(":")[0]] += 1
        if sample.fields is None:
            return
        self.read.update(sample.fields.read)
        for name in sample.fields.unread:
            self.unread.setdefault(name, Tally()).add(sample.origin)

    def refuse(self, origin: str, message: str) -> None:
        """Count a row that is no sample."""
        self.refused.add(origin)
        self.reasons = self.reasons or [message]

    def refusal(self) -> str | None:
        """Return why the first refused row is no sample, and which others are none."""
        if not self.reasons:
            return None
        if self.refused.count == 1:
            return self.reasons[0]
        return f"{self.reasons[0]}; refused rows in all: {self.refused}"

    def notes(self) -> list[str]:
        """Return what was not read, in a line for the report; none if all was."""
        if not self.unread:
            return []
        told = [self._told(name) for name in list(self.unread)[:_MOST]]
        more = len(self.unread) - len(told)
        return ["not read: " + "; ".join(told) + (f"; and {more} more" if more else "")]

    def _told(self, name: str) -> str:
        tally = self.unread[name]
        if tally.count == self.rows:
            return f"{name} (all {self.rows:,} rows)"
        return f"{name} ({tally.count:,} rows: {tally.places})"

    def table(self) -> list[tuple[str, str]]:
        """Return each column, key and turn with the rows it was read in, or was not."""
        rows = [(name, f"read in {count:,}") for name, count in self.read.items()]
        for name, tally in self.unread.items():
            rows.append((name, f"not read in {tally.count:,} ({tally.places})"))
        if self.refused.count:
            rows.append(("rows refused", str(self.refused)))
        return rows
