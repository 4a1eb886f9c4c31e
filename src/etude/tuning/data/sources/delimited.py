"""CSV and TSV reader; quoted fields may contain line ends."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

from etude.core.errors import DataError
from etude.tuning.data.sources.registry import (
    FileReader,
    Row,
    SourceRow,
    UnreadableRow,
    register_reader,
)
from etude.tuning.data.sources.text_lines import not_utf8, open_text


class _Lines(Iterator[str]):
    """The lines of a file, those of the record at hand kept to be read again."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._again: deque[str] = deque()
        self.number = 0
        """Of the line read last, from 1."""
        self.record: list[str] = []
        """Lines read since `begin`."""

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._stream)
        self.number += 1
        self.record.append(line)
        return line

    def begin(self) -> int:
        """Begin a record; return the number of its first line."""
        self.record = []
        return self.number + 1

    def give_up(self) -> None:
        """Take only the first line of the record as read."""
        self._again.extendleft(reversed(self.record[1:]))
        self.number -= len(self.record) - 1
        del self.record[1:]


def _reader(delimiter: str) -> Callable[[Path], Iterator[SourceRow]]:
    def read(file: Path) -> Iterator[SourceRow]:
        # The default bound of 131,072 characters a cell is less than a long document.
        csv.field_size_limit(2**31 - 1)
        with open_text(file, newline="") as stream:
            lines = _Lines(stream)
            records = csv.reader(lines, delimiter=delimiter, strict=True)
            header = _header(file, lines, records)
            while True:
                first = lines.begin()
                try:
                    cells = next(records)
                except StopIteration:
                    return
                except csv.Error as error:
                    # A quote that is not closed takes the lines after it into its text.
                    lines.give_up()
                    records = csv.reader(lines, delimiter=delimiter, strict=True)
                    origin = f"{file.name}:{first}"
                    yield UnreadableRow(origin, f"{origin} cannot be read: {error}")
                    continue
                if cells:
                    yield _row(file, header, cells, lines.record, first)

    return read


def _header(file: Path, lines: _Lines, records: Iterator[list[str]]) -> list[str]:
    try:
        header = next(records, list[str]())
    except csv.Error as error:
        raise DataError(f"{file.name}:1 cannot be read: {error}") from None
    if (complaint := not_utf8(file, "".join(lines.record), 1)) is not None:
        raise DataError(complaint)
    if len(set(header)) < len(header):
        raise DataError(f"{file.name}:1: duplicate column names: {', '.join(header)}")
    return header


def _row(
    file: Path, header: list[str], cells: list[str], record: list[str], first: int
) -> SourceRow:
    origin = f"{file.name}:{first}"
    if len(cells) != len(header):
        through = f" (lines {first} to {first + len(record) - 1})" if len(record) > 1 else ""
        return UnreadableRow(
            origin,
            f"{origin}: {len(cells)} cells where the header names {len(header)} columns "
            f"({', '.join(header)}){through}",
        )
    if (complaint := not_utf8(file, "".join(record), first)) is not None:
        return UnreadableRow(origin, complaint)
    return Row(origin, dict(zip(header, cells, strict=True)))


register_reader(FileReader((".csv",), _reader(",")))
register_reader(FileReader((".tsv",), _reader("\t")))
