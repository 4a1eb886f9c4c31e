"""CoNLL-style files: a word and its tags a line, sentences parted by blank lines.

A file is recognised by its content where its name may mean something else (`.tsv`, `.txt`, or an
unknown ending): every line ends in a tag. Columns are parted by tabs, or by white space. A row is a
sentence, with the columns `words` (the first), `tags` (the last), and `column 2`, `column 3`, ...
(those between). `-DOCSTART-` lines part documents, and are no words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import Any

from etude.tuning.data.sources.data_file import DataFile
from etude.tuning.data.sources.registry import (
    FileReader,
    Row,
    SourceRow,
    UnreadableRow,
    register_reader,
)
from etude.tuning.metrics.entities import OUTSIDE, is_tag

_LOOKED_AT = 400
"""Lines by which a file is recognised."""
_LONGEST = 10_000
"""Characters of a line that may be a word and its tags."""
_DOCUMENT = "-DOCSTART-"
_COMMENT = re.compile(r"#\s*[\w:.-]+\s*=")
"""CoNLL-U: `# sent_id = 3`."""


def looks_like_conll(file: DataFile) -> bool:
    """Return whether each of the first lines that is not blank ends in a tag, some not in O."""
    seen: set[str] = set()
    with file.open_text() as lines:
        # Other files have no lines, or endless ones.
        for line in islice(iter(partial(lines.readline, _LONGEST), ""), _LOOKED_AT):
            if len(line) == _LONGEST:
                return False
            if not line.strip() or line.startswith(_DOCUMENT) or _COMMENT.match(line):
                continue
            cells = _cells(line)
            if len(cells) < 2 or not is_tag(cells[-1]):
                return False
            seen.add(cells[-1])
    return bool(seen - {OUTSIDE})


def read_conll(file: DataFile, *, with_text: bool = False) -> Iterator[SourceRow]:
    """Yield the sentences of a file; each is named by the line of its first word.

    Args:
        file: the file.
        with_text: whether rows have the lines of the sentence as `text`, too: a `.txt` may be meant
            to be learnt as it is written.
    """
    words: list[list[str]] = []
    lines_of: list[str] = []
    start = 1
    columns = 0
    with file.open_text() as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip() or line.startswith(_DOCUMENT):
                if words:
                    yield _sentence(file, words, lines_of, start, with_text)
                words, lines_of = [], []
                continue
            if _COMMENT.match(line):
                continue
            cells = _cells(line)
            columns = columns or len(cells)
            if len(cells) != columns or columns < 2:
                origin = f"{file.name}:{number}"
                expected = f"as many as the first line ({columns})" if columns > 1 else "two"
                yield UnreadableRow(
                    origin,
                    f"{origin}: {len(cells)} columns, expected {expected}: a word and its tag, "
                    "parted by a tab or spaces",
                )
                continue
            if not words:
                start = number
            words.append(cells)
            lines_of.append(line)
    if words:
        yield _sentence(file, words, lines_of, start, with_text)


def _cells(line: str) -> list[str]:
    line = line.rstrip("\r\n")
    if "\t" in line:
        return [cell.strip() for cell in line.split("\t")]
    return line.split()


def _sentence(
    file: DataFile, words: list[list[str]], lines: list[str], start: int, with_text: bool
) -> SourceRow:
    origin = f"{file.name}:{start}"
    if (complaint := file.undecoded("".join(lines), start)) is not None:
        return UnreadableRow(origin, complaint)
    columns = list(zip(*words, strict=True))
    values: dict[str, Any] = {"words": list(columns[0]), "tags": list(columns[-1])}
    for number, column in enumerate(columns[1:-1], start=2):
        values[f"column {number}"] = list(column)
    if with_text:
        values["text"] = "".join(lines).rstrip("\n")
    return Row(origin, values)


register_reader(FileReader((".conll", ".conll03", ".bio", ".iob", ".iob2", ".bioes"), read_conll))
