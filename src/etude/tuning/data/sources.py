"""Rows from files and from the Hugging Face hub, one at a time, each with its place.

JSONL, JSON (an array), CSV, TSV, Parquet and plain text (a paragraph a row). All but a JSON
array are read as a stream, so a file larger than memory can be drawn from.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, TextIO, cast

from etude.core.errors import DataError, did_you_mean


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a source, by column, and where it was read (`train.jsonl:12`)."""

    origin: str
    values: dict[str, Any]


def read_rows(path: str | os.PathLike[str]) -> Iterator[Row]:
    """Return the rows of a file, read by what its name ends in.

    The file is opened and its kind checked at once; rows are read as they are asked for.

    Raises:
        DataError: the file is missing, a folder, empty, of an unknown kind, or damaged at a row.
    """
    file = Path(path).expanduser()
    if file.is_dir():
        raise DataError(f"{file} is a folder; name a file in it ({', '.join(_READERS)})")
    if not file.exists():
        near = [entry.name for entry in file.parent.iterdir()] if file.parent.is_dir() else []
        raise DataError(f"no data file at {file}{did_you_mean(file.name, near)}")
    reader = _READERS.get(file.suffix.lower())
    if reader is None:
        raise DataError(
            f"{file}: unknown kind of file {file.suffix!r}; known: {', '.join(_READERS)}"
        )
    if file.stat().st_size == 0:
        raise DataError(f"{file} is empty")
    return _guarded(file, reader)


def _guarded(file: Path, reader: Callable[[Path], Iterator[Row]]) -> Iterator[Row]:
    """Read rows; turn what the machine complains of into one line that names the file."""
    try:
        yield from reader(file)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{file} is not UTF-8: byte {error.object[error.start]:#04x} {_place(file, error)}; "
            "save it as UTF-8"
        ) from None
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror or error}") from None


def _place(file: Path, error: UnicodeDecodeError) -> str:
    """Say which line holds the first byte that does not decode, reading the file anew."""
    with file.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return f"in line {number}"
    return f"at {error.start}"


def _open(file: Path, newline: str | None = None) -> TextIO:
    # utf-8-sig drops the mark that Windows programs put before UTF-8 text.
    return file.open(encoding="utf-8-sig", newline=newline)


def _object(value: Any, origin: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        kind = type(cast("object", value)).__name__
        raise DataError(f"{origin}: expected an object {{column: value}}, got {kind}")
    return cast("dict[str, Any]", value)


def _jsonl(file: Path) -> Iterator[Row]:
    with _open(file, newline="\n") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            origin = f"{file.name}:{number}"
            try:
                value: Any = json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(
                    f"{origin} is not JSON: {error.msg} (column {error.colno})"
                ) from None
            yield Row(origin, _object(value, origin))


def _json(file: Path) -> Iterator[Row]:
    with _open(file) as stream:
        start = stream.read(4096).lstrip()[:1]
    if start == "{":
        # One object a line under the name .json: what many exports really are.
        yield from _jsonl(file)
        return
    try:
        with _open(file) as stream:
            values: Any = json.load(stream)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{file.name}:{error.lineno} is not JSON: {error.msg} (column {error.colno})"
        ) from None
    if not isinstance(values, list):
        raise DataError(f"{file} must hold an array of objects, or one object a line")
    for number, value in enumerate(cast("list[Any]", values), start=1):
        origin = f"{file.name}:{number}"
        yield Row(origin, _object(value, origin))


def _delimited(delimiter: str) -> Callable[[Path], Iterator[Row]]:
    def read(file: Path) -> Iterator[Row]:
        # The default bound of 131,072 characters a cell is less than a long document.
        csv.field_size_limit(2**31 - 1)
        with _open(file, newline="") as stream:
            reader = csv.reader(stream, delimiter=delimiter, strict=True)
            line = 1
            try:
                header = next(reader, list[str]())
                if len(set(header)) < len(header):
                    raise DataError(
                        f"{file.name}:1: two columns have one name: {', '.join(header)}"
                    )
                line = reader.line_num + 1
                for cells in reader:
                    if cells and len(cells) != len(header):
                        raise DataError(
                            f"{file.name}:{line}: {len(cells)} cells where the header names "
                            f"{len(header)} columns ({', '.join(header)})"
                        )
                    if cells:
                        yield Row(f"{file.name}:{line}", dict(zip(header, cells, strict=True)))
                    line = reader.line_num + 1
            except csv.Error as error:
                raise DataError(f"{file.name}:{line} cannot be read: {error}") from None

    return read


def _parquet(file: Path) -> Iterator[Row]:
    # pyarrow has no types.
    arrow: Any = import_module("pyarrow")
    parquet_module: Any = import_module("pyarrow.parquet")
    number = 0
    try:
        with parquet_module.ParquetFile(file) as parquet:
            for batch in parquet.iter_batches(batch_size=1024):
                for values in batch.to_pylist():
                    number += 1
                    yield Row(f"{file.name}:{number}", values)
    except arrow.ArrowException as error:
        raise DataError(
            f"{file} cannot be read as Parquet: {' '.join(str(error).split())}"
        ) from None


def _paragraphs(file: Path) -> Iterator[Row]:
    """Read plain text: lines between blank lines make a row with the one column `text`."""
    lines: list[str] = []
    start = 1
    with _open(file) as stream:
        for number, line in enumerate(stream, start=1):
            if line.strip():
                if not lines:
                    start = number
                lines.append(line)
            elif lines:
                yield Row(f"{file.name}:{start}", {"text": "".join(lines).rstrip("\n")})
                lines = []
    if lines:
        yield Row(f"{file.name}:{start}", {"text": "".join(lines).rstrip("\n")})


_READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".json": _json,
    ".csv": _delimited(","),
    ".tsv": _delimited("\t"),
    ".parquet": _parquet,
    ".txt": _paragraphs,
}


def hub_rows(name: str, config: str | None, split: str) -> Iterator[Row]:
    """Return the rows of one split of a data set of the Hugging Face hub (or a local folder).

    Raises:
        DataError: `datasets` is not installed, the hub cannot be reached, or it knows no such
            data set, configuration or split.
    """
    try:
        library: Any = import_module("datasets")
    except ImportError:
        raise DataError(
            f"the data set {name!r} needs the package 'datasets': pip install datasets"
        ) from None
    library.disable_progress_bars()
    try:
        table: Any = library.load_dataset(name, config, split=split)
    # The library lets errors of every layer through: requests', the hub's, its own, OSError.
    except Exception as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"cannot load the data set {name!r} (split {split!r}): {type(error).__name__}: "
            f"{reason[:200]}; check the name, or the connection to the hub"
        ) from None
    return (Row(f"{name}:{number}", values) for number, values in enumerate(table, start=1))
