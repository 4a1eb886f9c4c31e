"""Rows of `task: embedding`: a text with its positive, perhaps a negative, or with a label."""

from __future__ import annotations

from collections.abc import Callable

from etude.core.errors import DataError
from etude.tuning.config.sections.data import DataSpec
from etude.tuning.data.columns import field_reader, missing
from etude.tuning.data.labels import read_label
from etude.tuning.data.schema import Sample
from etude.tuning.data.sources.registry import Row


def pair_reader(spec: DataSpec, first: Row) -> Callable[[Row], Sample]:
    """Return a function that reads a row; the first row decides whether labels are used."""
    text = field_reader(spec.text, "data.text")
    by_label = spec.positive not in first.values and spec.label in first.values
    positive = field_reader(spec.positive, "data.positive")
    negative = field_reader(spec.negative, "data.negative")

    def filled(read: Callable[[Row], str], row: Row, key: str) -> str:
        value = read(row)
        if not value.strip():
            raise DataError(f"{row.origin}: {key} is empty")
        return value

    def read(row: Row) -> Sample:
        anchor = filled(text, row, "data.text")
        if by_label:
            return Sample((), anchor, row.origin, label=read_label(row, spec))
        if "{" not in spec.positive and spec.positive not in row.values:
            raise missing(row, spec.positive, "data.positive")
        other = row.values.get(spec.negative) is not None or "{" in spec.negative
        return Sample(
            (),
            anchor,
            row.origin,
            positive=filled(positive, row, "data.positive"),
            negative=filled(negative, row, "data.negative") if other else None,
        )

    return read
