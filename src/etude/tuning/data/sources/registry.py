"""Source registry: row sources by `data.kind`, file readers by suffix.

A source is a module of this package that registers a `RowSource`, whose rows are read by a format,
or a `SplitSource`, which makes samples itself. A kind of file is a module that registers a
`FileReader`.

A row that cannot be read does not end reading: it is returned as an `UnreadableRow`, and the caller
decides. A run refuses it; `etude data check` reports it and continues.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from etude.core.registry import Registry
from etude.tuning.config.sections.data import DataSpec
from etude.tuning.data.schema import DataSplit
from etude.tuning.data.sources.data_file import DataFile


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a source, by column, and where it was read (`train.jsonl:12`)."""

    origin: str
    values: dict[str, Any]


@dataclass(frozen=True, slots=True)
class UnreadableRow:
    """A row that is damaged, where it is, and what is wrong with it."""

    origin: str
    message: str
    """One line that names the row."""


SourceRow = Row | UnreadableRow


@dataclass(frozen=True)
class SourceRows:
    """The rows that a recipe names, as streams."""

    train: Iterator[SourceRow]

    eval: Iterator[SourceRow] | None
    """None: evaluation rows are held out of `train`."""


@dataclass(frozen=True)
class RowSource:
    """A source whose rows are read by one of the data formats."""

    kind: str
    """As `data.kind` names it."""

    rows: Callable[[DataSpec], SourceRows]
    """Raises `DataError` where nothing can be read at all: no file, no data set."""


@dataclass(frozen=True)
class SplitSource:
    """A source that makes samples itself, split already."""

    kind: str
    """As `data.kind` names it."""

    split: Callable[[DataSpec, int], DataSplit]
    """Called with the recipe's seed, which decides what is drawn and held out."""


@dataclass(frozen=True)
class FileReader:
    """How the rows of one kind of file are read."""

    suffixes: tuple[str, ...]
    """Lower case, with their dots."""

    rows: Callable[[DataFile], Iterator[SourceRow]]
    """Raises `DataError` where the file as a whole is not of its kind."""


SOURCES: Registry[RowSource | SplitSource] = Registry("data source", __package__)
READERS: Registry[FileReader] = Registry("file reader of", __package__)
"""By suffix."""


def register_source(source: RowSource | SplitSource) -> None:
    """Make a source known by its kind."""
    SOURCES.register(source.kind, source)


def register_reader(reader: FileReader) -> None:
    """Make a reader known by each of its suffixes."""
    for suffix in reader.suffixes:
        READERS.register(suffix, reader)


def object_row(origin: str, value: Any) -> SourceRow:
    """Return a row of a JSON value; what is no object is no row."""
    if isinstance(value, dict):
        return Row(origin, value)  # pyright: ignore[reportUnknownArgumentType]
    kind = type(value).__name__
    return UnreadableRow(origin, f"{origin}: expected an object {{column: value}}, got {kind}")
