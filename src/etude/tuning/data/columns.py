"""Reading one column of a row, or a template of columns, with every complaint naming the row."""

from __future__ import annotations

import math
import string
from collections.abc import Callable, Mapping
from typing import Any

from etude.core.errors import DataError, did_you_mean
from etude.tuning.data.json_text import parse_json
from etude.tuning.data.sources.registry import Row


def columns_of(setting: str, key: str) -> set[str]:
    """Return the columns that a setting, a column's name or a template, reads.

    Raises:
        DataError: it is no template, by `key`, the recipe's key that it is of.
    """
    if "{" not in setting and "}" not in setting:
        return {setting}
    try:
        pieces = list(string.Formatter().parse(setting))
    except ValueError as error:
        raise DataError(f"{key}: {setting!r} is not a template: {error}") from None
    if any(spec or conversion for _, _, spec, conversion in pieces):
        raise DataError(f"{key}: {setting!r}: a column stands alone in its braces, as in {{name}}")
    columns = {name for _, name, _, _ in pieces if name is not None}
    if not columns or "" in columns:
        raise DataError(f"{key}: {setting!r} names no column: write it as in {{name}}")
    return columns


def field_reader(setting: str, key: str) -> Callable[[Row], str]:
    """Return the function that reads a text by a column's name or a template of columns."""
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
    """Return the text, or the number as text, of a column.

    Raises:
        DataError: there is no such column, or it holds something else.
    """
    if column not in row.values:
        raise missing(row, column, key)
    value: Any = row.values[column]
    if isinstance(value, str):
        return checked(value, f"{row.origin}: column {column!r}")
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    # NaN is how tables write a missing value.
    if isinstance(value, float) and math.isfinite(value):
        return str(value)
    raise DataError(f"{row.origin}: column {column!r} must be text, got {shown(value)}")


def parsed(value: Any, where: str) -> Any:
    """Return a value, read as JSON first where a file could hold it as text only (CSV).

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
    """Return text that can be encoded; JSON can hold half of a character.

    Raises:
        DataError: it does.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{where} holds half a character, {text[error.start]!r}, at place {error.start}; "
            "write the data anew from its source"
        ) from None
    return text


def missing(row: Row, column: str, key: str) -> DataError:
    """Return the complaint that a row lacks a column."""
    hint = did_you_mean(column, row.values)
    return DataError(
        f"{row.origin}: no column {column!r} ({key}){hint}; this row has {names(row.values)}"
    )


def names(columns: Mapping[str, Any] | set[str]) -> str:
    """Return column names for a message."""
    return ", ".join(repr(name) for name in sorted(columns)) or "no columns"


def shown(value: Any) -> str:
    """Return a value for a message: null as data calls it, long values shortened."""
    if value is None:
        return "null"
    written = repr(value)
    return written if len(written) <= 60 else f"{written[:57]}..."
