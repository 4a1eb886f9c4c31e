"""CSV and TSV reader; quoted fields may contain line ends.

Other separators are told by the header, where the usual one would leave it one cell.
"""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Callable, Iterator
from typing import TextIO

from etude.core.errors import DataError
from etude.tuning.data.sources.data_file import DataFile
from etude.tuning.data.sources.registry import (
    FileReader,
    Row,
    SourceRow,
    UnreadableRow,
    register_reader,
)


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


SEPARATORS = (",", ";", "\t", "|")

_NAMED = re.compile(r"\"?sep=(.)\"?\s*")
"""First line by which spreadsheets name the separator."""


def _separator(file: DataFile, usual: str) -> tuple[str, bool]:
    """Return what parts cells, and whether the first line only says so.

    It is the recipe's, or what the file's first line names; else the usual one of the file's
    suffix, unless the header is one cell by that and several by another.
    """
    with file.open_text(newline="") as stream:
        header = stream.readline()
    named = _NAMED.fullmatch(header)
    if file.separator is not None or named is not None:
        return file.separator or (named[1] if named else usual), named is not None
    cells = {
        separator: len(next(csv.reader([header], delimiter=separator), list[str]()))
        for separator in (usual, *SEPARATORS)
    }
    return (usual if cells[usual] > 1 else max(cells, key=lambda s: cells[s])), False


def _reader(usual: str) -> Callable[[DataFile], Iterator[SourceRow]]:
    def read(file: DataFile) -> Iterator[SourceRow]:
        # The default bound of 131,072 characters a cell is less than a long document.
        csv.field_size_limit(2**31 - 1)
        with file.open_text(newline="") as stream:
            lines = _Lines(stream)
            delimiter, named = _separator(file, usual)
            if named:
                next(lines)
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
                    yield UnreadableRow(
                        origin,
                        f"{origin} cannot be read: {error}; a quote inside a quoted cell is "
                        'written twice: ""',
                    )
                    continue
                if cells:
                    yield _row(file, header, cells, lines.record, first)

    return read


def _header(file: DataFile, lines: _Lines, records: Iterator[list[str]]) -> list[str]:
    try:
        header = next(records, list[str]())
    except csv.Error as error:
        raise DataError(f"{file.name}:1 cannot be read: {error}") from None
    if (complaint := file.undecoded("".join(lines.record), 1)) is not None:
        raise DataError(complaint)
    if len(set(header)) < len(header):
        raise DataError(f"{file.name}:1: duplicate column names: {', '.join(header)}")
    return header


def _row(
    file: DataFile, header: list[str], cells: list[str], record: list[str], first: int
) -> SourceRow:
    origin = f"{file.name}:{first}"
    if len(cells) != len(header):
        through = f" (lines {first} to {first + len(record) - 1})" if len(record) > 1 else ""
        return UnreadableRow(
            origin,
            f"{origin}: {len(cells)} cells where the header names {len(header)} columns "
            f"({', '.join(header)}){through}",
        )
    if (complaint := file.undecoded("".join(record), first)) is not None:
        return UnreadableRow(origin, complaint)
    return Row(origin, dict(zip(header, cells, strict=True)))


register_reader(FileReader((".csv",), _reader(",")))
register_reader(FileReader((".tsv",), _reader("\t")))
