"""Parquet reader, one row group at a time: damaged groups do not affect the others."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any

from etude.core.errors import DataError
from etude.tuning.data.sources.arrow_nulls import without_padding
from etude.tuning.data.sources.class_names import named, names_in_schema
from etude.tuning.data.sources.data_file import DataFile
from etude.tuning.data.sources.registry import (
    FileReader,
    Row,
    SourceRow,
    UnreadableRow,
    register_reader,
)

_BATCH = 1024


def _rows(file: DataFile) -> Iterator[SourceRow]:
    if file.compression:
        raise DataError(f"{file}: Parquet is compressed inside; unpack {file.compression} first")
    # pyarrow has no types.
    arrow: Any = import_module("pyarrow")
    parquet_module: Any = import_module("pyarrow.parquet")
    try:
        opened = parquet_module.ParquetFile(file.path)
    except arrow.ArrowException as error:
        raise DataError(f"{file} cannot be read as Parquet: {_one_line(error)}") from None
    names = names_in_schema(opened.schema_arrow.metadata)
    done = 0
    with opened as parquet:
        for group in range(parquet.num_row_groups):
            end = done + parquet.metadata.row_group(group).num_rows
            try:
                for batch in parquet.iter_batches(batch_size=_BATCH, row_groups=[group]):
                    for row in _batch_rows(file, batch, done):
                        if names and isinstance(row, Row):
                            yield Row(row.origin, named(row.values, names))
                        else:
                            yield row
                    done += batch.num_rows
            # pyarrow reports pages that do not decompress as OSError.
            except (arrow.ArrowException, OSError) as error:
                for number in range(done + 1, end + 1):
                    origin = f"{file.name}:{number}"
                    yield UnreadableRow(
                        origin, f"{origin} is in a damaged row group: {_one_line(error)}"
                    )
            done = end


def _batch_rows(file: DataFile, batch: Any, done: int) -> Iterator[SourceRow]:
    try:
        found: list[SourceRow] = [
            Row(f"{file.name}:{done + number}", without_padding(values))
            for number, values in enumerate(batch.to_pylist(), start=1)
        ]
    # Text that is not UTF-8, dates outside of Python's: whose row it is, is found one by one.
    except (ValueError, OverflowError):
        found = [_row(file, batch.slice(place, 1), done + place + 1) for place in range(len(batch))]
    yield from found


def _row(file: DataFile, single: Any, number: int) -> SourceRow:
    origin = f"{file.name}:{number}"
    try:
        return Row(origin, without_padding(single.to_pylist()[0]))
    except (ValueError, OverflowError) as error:
        return UnreadableRow(origin, f"{origin} cannot be read: {_one_line(error)}")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


register_reader(FileReader((".parquet",), _rows))
