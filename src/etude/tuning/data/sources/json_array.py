"""JSON reader: an array of objects, or one object per line in a `.json` file.

An array is read whole, element by element. Where a damaged element ends is told by its brackets,
or, where these do not match, by the next line that begins like the one the element begins on.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from etude.core.errors import DataError
from etude.core.json_text import parse_json_at
from etude.tuning.data.sources.data_file import DataFile
from etude.tuning.data.sources.jsonl import read_lines
from etude.tuning.data.sources.registry import (
    FileReader,
    Row,
    SourceRow,
    UnreadableRow,
    object_row,
    register_reader,
)

_SPACE = re.compile(r"\s*")
_TOKEN = re.compile(r'"(?:[^"\\\n]|\\.)*"|["\[\]{},]')
_CLOSES = {"]": "[", "}": "{"}


def _rows(file: DataFile) -> Iterator[SourceRow]:
    with file.open_text() as stream:
        start = stream.read(4096).lstrip()[:1]
    if start == "{":
        yield from read_lines(file)
        return
    if start != "[":
        raise DataError(f"{file} must contain an array of objects, or one object per line")
    with file.open_text() as stream:
        text = stream.read()
    place = _skip_space(text, text.index("[") + 1)
    number = 0
    while text[place : place + 1] != "]":
        number += 1
        origin = f"{file.name}:{number}"
        begin = place
        try:
            value, place = parse_json_at(text, begin)
            row = object_row(origin, value)
        except ValueError as error:
            place = _end(text, begin)
            lost = "; the start of the next row cannot be determined" if place == len(text) else ""
            row = UnreadableRow(origin, f"{origin} is not JSON: {error}{lost}")
        piece = text[begin:place]
        if not piece.isascii():
            complaint = file.undecoded(piece, text.count("\n", 0, begin) + 1)
            row = UnreadableRow(origin, complaint) if complaint else row
        place = _skip_space(text, place)
        if text[place : place + 1] == ",":
            place = _skip_space(text, place + 1)
        elif isinstance(row, Row) and text[place : place + 1] != "]":
            after = "a comma" if place < len(text) else "the array's end"
            row = UnreadableRow(origin, f"{origin} is not JSON: {after} is missing after it")
        yield row
        if place == len(text):
            return
    if text[place + 1 :].strip():
        origin = f"{file.name}:{number + 1}"
        line = text.count("\n", 0, place) + 1
        yield UnreadableRow(origin, f"{origin}: content after the array's end in line {line}")


def _skip_space(text: str, place: int) -> int:
    space = _SPACE.match(text, place)
    assert space is not None  # it matches nothing, too
    return space.end()


def _end(text: str, begin: int) -> int:
    """Return where a damaged element ends: a comma, the array's bracket or the next element."""
    opened: list[str] = []
    for token in _TOKEN.finditer(text, begin):
        mark = token.group()
        if mark in "[{":
            opened.append(mark)
        elif not opened and mark in ",]":
            return token.start()
        elif mark in _CLOSES:
            if not opened or opened.pop() != _CLOSES[mark]:
                break
        elif mark == '"':  # a text that does not end on its line
            break
    line = text.rfind("\n", 0, begin) + 1
    before = text[line:begin]
    indent = re.escape(before) if before.isspace() or not before else r"[ \t]*"
    alike = re.compile(rf"\n{indent}{re.escape(text[begin : begin + 1])}").search(text, begin)
    return alike.end() - 1 if alike else len(text)


register_reader(FileReader((".json",), _rows))
