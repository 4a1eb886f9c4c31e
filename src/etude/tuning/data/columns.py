"""Reading of row columns and column templates, with errors that name the row."""

from __future__ import annotations

import math
import string
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, cast

from etude.core.errors import DataError, did_you_mean
from etude.core.json_text import parse_json, text_list
from etude.tuning.data.sources.registry import Row

ABSENT: Any = object()
"""What `value_at` returns for a column that a row does not have."""


class WatchedColumns(dict[str, Any]):
    """The columns of a row, which remember what was read."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self.used: set[str] = set()
        """Names of columns, and paths into them (`question.text`)."""

    def __getitem__(self, column: str) -> Any:
        self.used.add(column)
        return super().__getitem__(column)

    def get(self, column: str, default: Any = None) -> Any:
        """Return a column's value, read; `default` without the column."""
        self.used.add(column)
        return super().get(column, default)


def value_at(values: dict[str, Any], column: str) -> Any:
    """Return the value of a column, or of a path into one; `ABSENT` if there is none.

    `question.text` is the column of that name, else the key `text` of the objects in `question`;
    `answers.text.0` is the first entry of the list there.
    """
    if column in values:
        return values[column]
    first, *path = column.split(".")
    value = _peek(values, first)
    for step in path:
        value = _inside(value, step)
    if value is not ABSENT and isinstance(values, WatchedColumns):
        values.used.add(column)
    return value


def _peek(values: dict[str, Any], column: str) -> Any:
    """Return a column's value without marking the column as read."""
    plain = cast("Any", dict)
    return plain.get(values, column, ABSENT)


def _inside(value: Any, step: str) -> Any:
    if isinstance(value, Mapping):
        return cast("Mapping[str, Any]", value).get(step, ABSENT)
    if isinstance(value, (list, tuple)) and step.isdigit():
        entries = cast("Sequence[Any]", value)
        return entries[int(step)] if int(step) < len(entries) else ABSENT
    return ABSENT


def columns_of(setting: str, key: str) -> set[str]:
    """Return the columns used by a setting: a column's name, a path into one, or a template.

    Raises:
        DataError: it is not a valid template; the message names `key`.
    """
    if "{" not in setting and "}" not in setting:
        return {setting}
    try:
        pieces = list(string.Formatter().parse(setting))
    except ValueError as error:
        raise DataError(f"{key}: {setting!r} is not a template: {error}") from None
    if any(spec or conversion for _, _, spec, conversion in pieces):
        raise DataError(f"{key}: {setting!r}: braces may contain only a column: {{name}}")
    columns = {name for _, name, _, _ in pieces if name is not None}
    if not columns or "" in columns:
        raise DataError(f"{key}: {setting!r} names no column; use {{name}}")
    return columns


@lru_cache(maxsize=64)
def field_reader(setting: str, key: str) -> Callable[[Row], str]:
    """Return a function that reads a text by a column's name or a template."""
    columns_of(setting, key)
    if "{" not in setting and "}" not in setting:
        return lambda row: read_text(row, setting, key)
    pieces = list(string.Formatter().parse(setting))

    def fill(row: Row) -> str:
        return "".join(
            literal + ("" if name is None else read_text(row, name, key))
            for literal, name, _, _ in pieces
        )

    return fill


def read_text(row: Row, column: str, key: str) -> str:
    """Return the text of a column; numbers are converted to text, and a list of texts is joined.

    A list is what data sets of summaries have: the sentences of a text.

    Raises:
        DataError: the column is missing, or contains something else.
    """
    value = value_at(row.values, column)
    if value is ABSENT:
        raise missing(row, column, key)
    if isinstance(value, str):
        return checked(value, f"{row.origin}: column {column!r}")
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    # NaN represents a missing value in tables.
    if isinstance(value, float) and math.isfinite(value):
        return str(value)
    if (pieces := text_list(value)) is not None:
        text = " ".join(piece.strip() for piece in pieces)
        return checked(text, f"{row.origin}: column {column!r}")
    raise DataError(f"{row.origin}: column {column!r} must be text, got {shown(value)}")


def parsed(value: Any, where: str) -> Any:
    """Return a value, parsed as JSON if it is text (as in CSV).

    Raises:
        DataError: the text is not JSON.
    """
    if not isinstance(value, str):
        return value
    try:
        return parse_json(value)
    except ValueError as error:
        raise DataError(f"{where} is not JSON ({error}): {shown(value)}") from None


def checked(text: str, where: str) -> str:
    """Return text, refusing unpaired surrogates, which JSON allows.

    Raises:
        DataError: the text contains an unpaired surrogate.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{where} contains an unpaired surrogate, {text[error.start]!r}, at position "
            f"{error.start}; export the data again from its source"
        ) from None
    return text


def missing(row: Row, column: str, key: str) -> DataError:
    """Return the error for a missing column."""
    hint = did_you_mean(column, row.values)
    outer = _peek(row.values, column.partition(".")[0])
    inner = ""
    if isinstance(outer, Mapping) and outer:
        inner = f", with {names(cast('Mapping[str, Any]', outer))} in {column.partition('.')[0]!r}"
    return DataError(
        f"{row.origin}: no column {column!r} ({key}){hint}; this row has {names(row.values)}{inner}"
    )


def names(columns: Mapping[str, Any] | set[str]) -> str:
    """Return column names for a message."""
    return ", ".join(repr(name) for name in sorted(columns)) or "no columns"


def shown(value: Any) -> str:
    """Return a value for a message: None as null, long values shortened."""
    if value is None:
        return "null"
    written = repr(value)
    return written if len(written) <= 60 else f"{written[:57]}..."
