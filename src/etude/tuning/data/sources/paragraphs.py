"""Plain text: lines between blank lines make a row with the one column `text`."""

from __future__ import annotations

from collections.abc import Iterator

from etude.tuning.data.sources.data_file import DataFile
from etude.tuning.data.sources.registry import (
    FileReader,
    Row,
    SourceRow,
    UnreadableRow,
    register_reader,
)


def _rows(file: DataFile) -> Iterator[SourceRow]:
    lines: list[str] = []
    start = 1
    with file.open_text() as stream:
        for number, line in enumerate(stream, start=1):
            if line.strip():
                if not lines:
                    start = number
                lines.append(line)
            elif lines:
                yield _row(file, "".join(lines), start)
                lines = []
    if lines:
        yield _row(file, "".join(lines), start)


def _row(file: DataFile, text: str, start: int) -> SourceRow:
    origin = f"{file.name}:{start}"
    if (complaint := file.undecoded(text, start)) is not None:
        return UnreadableRow(origin, complaint)
    return Row(origin, {"text": text.rstrip("\n")})


register_reader(FileReader((".txt",), _rows))
