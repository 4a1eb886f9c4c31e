"""Row formats: conversion of rows to samples, by name or detected from the columns.

A format is a module of this package that registers a `DataFormat`. `data.format: auto` asks all of
them about the first row; each that recognises it names a priority, and the lowest wins:

    10  preference           its two columns are there, or the recipe names one
    20  unpaired_preference  the recipe names the column of the label
    30  prompt_completion    the recipe names the prompt or the completion
    40  unpaired_preference  a label that is true or false, beside an answer
    50  messages             a column `messages`
    60  sharegpt             a column `conversations` or `conversation`
    65  gemini               a column `contents`
    70  alpaca               columns `instruction` and `output`
    71  dolly                columns `instruction` and `response`
    80  prompt_completion    its two columns are there
    80  input_output         columns `input` and `output`
    90  text                 its column is there, or the recipe names one

Two formats of one priority are a question to the person: a label of 1 or 0 beside an answer may be
a class (`prompt_completion`, `messages`) or say whether the answer is desirable.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from etude.core.errors import DataError
from etude.core.registry import Registry
from etude.tuning.config.sections.data import DataSpec
from etude.tuning.data.columns import ABSENT, columns_of, names, shown, value_at
from etude.tuning.data.schema import Sample
from etude.tuning.data.sources.registry import Row

Reader = Callable[[Row], Sample]


@dataclass(frozen=True)
class FirstRow:
    """What a format is recognised by: the first row of the data, and what the recipe names."""

    row: Row
    spec: DataSpec

    columns: frozenset[str]
    """Of the row."""

    asked: frozenset[str]
    """Columns that `data.prompt` and `data.completion` read."""

    named: frozenset[str]
    """Settings of columns that the recipe gives another value than their default."""

    def has(self, *columns: str) -> bool:
        """Whether the row has all of these columns, or paths into columns."""
        return all(value_at(self.row.values, column) is not ABSENT for column in columns)

    @property
    def answered(self) -> bool:
        """Whether the row has what `data.prompt` and `data.completion` read."""
        return self.has(*self.asked)

    @classmethod
    def of(cls, row: Row, spec: DataSpec) -> FirstRow:
        """Look at a row.

        Raises:
            DataError: `data.prompt` or `data.completion` is no template.
        """
        asked = columns_of(spec.prompt, "data.prompt")
        asked |= columns_of(spec.completion, "data.completion")
        fields = DataSpec.model_fields
        settings = ("prompt", "completion", "text", "chosen", "rejected", "label")
        named = {name for name in settings if getattr(spec, name) != fields[name].default}
        return cls(row, spec, frozenset(row.values), frozenset(asked), frozenset(named))


@dataclass(frozen=True)
class DataFormat:
    """One way to read a row."""

    name: str
    """As `data.format` names it."""

    columns: tuple[str, ...]
    """That a row must have, by their default names; for messages."""

    recognize: Callable[[FirstRow], int | None]
    """Returns the priority with which the format claims rows like the first, None if it does not.
    See the module for the priorities in use."""

    reader: Callable[[DataSpec], Reader]
    """Returns the function that reads a row; that raises `DataError` naming the row."""


FORMATS: Registry[DataFormat] = Registry("data format", __package__)


def register(data_format: DataFormat) -> DataFormat:
    """Make a format known by its name."""
    return FORMATS.register(data_format.name, data_format)


def sample_reader(spec: DataSpec, first: Row) -> Reader:
    """Return the function that reads rows like `first`, by `spec.format` or by its columns.

    Raises:
        DataError: `format: auto` finds none of the columns that it looks for, or two formats that
            claim them alike.
    """
    return FORMATS[format_name(spec, first)].reader(spec)


def format_name(spec: DataSpec, first: Row) -> str:
    """Return the name of the format of rows like `first`: the recipe's, or the recognised one.

    Raises:
        DataError: as `sample_reader`.
    """
    return spec.format if spec.format != "auto" else _recognized(FirstRow.of(first, spec))


def _recognized(first: FirstRow) -> str:
    claims = [
        (priority, name)
        for name, data_format in FORMATS.items()
        if (priority := data_format.recognize(first)) is not None
    ]
    if not claims:
        raise DataError(
            f"{first.row.origin}: expected {_expected()}; this row has "
            f"{names(set(first.columns))}; name the columns by data.prompt and data.completion (a "
            "column, or a template with {columns}), or by data.text"
        )
    best = min(priority for priority, _ in claims)
    chosen = sorted(name for priority, name in claims if priority == best)
    if len(chosen) > 1:
        raise DataError(
            f"{first.row.origin}: the columns may be those of {' or of '.join(chosen)}"
            f"{_question(first, chosen)}; say which by data.format"
        )
    return chosen[0]


def _question(first: FirstRow, formats: list[str]) -> str:
    """Return what decides between formats, where it can be said."""
    if "unpaired_preference" not in formats:
        return ""
    column = first.spec.label
    value = shown(value_at(first.row.values, column))
    return f" (does {column!r}, {value}, say whether the answer is desirable?)"


def _expected() -> str:
    """Return the columns of all formats in words, those of one column first."""
    listed = sorted({data_format.columns for data_format in FORMATS.values()})
    single = [repr(columns[0]) for columns in listed if len(columns) == 1]
    several = [
        f"{', '.join(map(repr, columns[:-1]))} and {columns[-1]!r}"
        for columns in listed
        if len(columns) > 1
    ]
    return f"a column {' or '.join(single)}, or columns {'; or '.join(several)}"
