"""JSON Lines reader: one object per line."""

from __future__ import annotations

from collections.abc import Iterator

from etude.core.json_text import parse_json
from etude.tuning.data.sources.data_file import DataFile
from etude.tuning.data.sources.registry import (
    FileReader,
    SourceRow,
    UnreadableRow,
    object_row,
    register_reader,
)


def read_lines(file: DataFile) -> Iterator[SourceRow]:
    """Yield the rows of a file; each is named by its line."""
    with file.open_text(newline="\n") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            origin = f"{file.name}:{number}"
            if (complaint := file.undecoded(line, number)) is not None:
                yield UnreadableRow(origin, complaint)
                continue
            try:
                value = parse_json(line.rstrip("\r\n"))
            except ValueError as error:
                yield UnreadableRow(origin, f"{origin} is not JSON: {error}")
                continue
            yield object_row(origin, value)


register_reader(FileReader((".jsonl", ".ndjson"), read_lines))
