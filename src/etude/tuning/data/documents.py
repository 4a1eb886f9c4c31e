"""Documents for language modelling: text files, a folder of them, or rows with a text.

A text file (.txt, .md, .rst, .html) is one document, or several where `data.document_start` says
what line begins one. In a folder every such file is read, in the order of the paths; whatever else
is there is counted and named.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from etude.core.errors import DataError
from etude.tuning.config.sections.data import DataSpec
from etude.tuning.data.columns import field_reader
from etude.tuning.data.counts import Tally
from etude.tuning.data.disk_buffer import DiskBuffer
from etude.tuning.data.draws import content_key
from etude.tuning.data.schema import Sample
from etude.tuning.data.sources.data_file import DataFile
from etude.tuning.data.sources.files import read_rows
from etude.tuning.data.sources.html_text import html_to_text
from etude.tuning.data.sources.registry import SourceRow, UnreadableRow

HTML = (".html", ".htm", ".xhtml")
TEXTS = (".txt", ".text", ".md", ".markdown", ".rst", *HTML)

_NAMED = 5
"""Files that a note names of those that were not read."""


@dataclass
class Documents:
    """Documents, and what was left out on the way to them."""

    samples: Sequence[Sample]
    notes: list[str] = field(default_factory=list[str])


def is_text(name: str) -> bool:
    """Return whether a path names documents: a folder, or a text file."""
    path = Path(name).expanduser()
    return path.is_dir() or path.suffix.lower() in TEXTS


def read_documents(name: str, spec: DataSpec) -> Documents:
    """Read the documents of a folder, a text file or a file of rows.

    Args:
        name: the path.
        spec: gives `text` and `document_start`.

    Raises:
        DataError: nothing can be read there, or a file or row is damaged.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return _of_folder(path, spec)
    if path.suffix.lower() in TEXTS and path.is_file():
        return collected(_of_file(path, path.name, spec), name)
    return documents_of(read_rows(name), spec, name)


def documents_of(rows: Iterable[SourceRow], spec: DataSpec, name: str) -> Documents:
    """Read a document from `data.text` of each row.

    Raises:
        DataError: a row is damaged or lacks the column; or there is no text at all.
    """
    read = field_reader(spec.text, "data.text")

    def samples() -> Iterator[Sample]:
        for row in rows:
            if isinstance(row, UnreadableRow):
                raise DataError(f"{row.message}; `etude data check {name}` names every such row")
            yield Sample.plain(read(row), row.origin)

    return collected(samples(), name)


def collected(samples: Iterable[Sample], name: str) -> Documents:
    """Keep documents that hold any text, and count those that do not.

    Raises:
        DataError: none is left.
    """
    kept, empty = DiskBuffer(), Tally()
    for sample in samples:
        if (sample.text or "").strip():
            kept.append(sample)
        else:
            empty.add(sample.origin)
    if not len(kept):
        raise DataError(f"{name} contains no text")
    notes = [f"{name}: left out, empty documents: {empty}"] if empty.count else []
    return Documents(kept, notes)


def without(documents: Documents, keys: set[bytes], reason: str) -> Documents:
    """Return documents whose content is not among `keys`, with a note of how many were.

    Args:
        documents: to choose from.
        keys: `content_key` of each document that must not be among them.
        reason: ends the note: `that are also in the evaluation data`.
    """
    kept, dropped = DiskBuffer(), Tally()
    for sample in documents.samples:
        if content_key(sample) in keys:
            dropped.add(sample.origin)
        else:
            kept.append(sample)
    if not dropped.count:
        return documents
    return Documents(kept, [*documents.notes, f"left out, documents {reason}: {dropped}"])


def split_single(document: Sample, fraction: float) -> tuple[Sample, Sample] | None:
    """Cut a document in two, the second part at most `fraction` of it, at the end of a paragraph.

    None if it has no line or space to be cut at.
    """
    text = document.text or ""
    wanted = len(text) - int(len(text) * fraction)
    for separator in ("\n\n", "\n", " "):
        # The cut nearest after the wanted place, or before it where none follows.
        place = text.find(separator, wanted)
        if place < 0 or not text[place:].strip():
            place = text.rfind(separator, 0, wanted)
        if place > 0 and text[:place].strip() and text[place:].strip():
            rest = text[place:].lstrip("\n")
            line = text.count("\n", 0, len(text) - len(rest)) + 1
            return (
                replace(document, text=text[:place]),
                Sample.plain(rest, f"{document.origin}:{line}"),
            )
    return None


def _of_folder(folder: Path, spec: DataSpec) -> Documents:
    read: list[tuple[Path, str]] = []
    other: list[str] = []
    hidden: list[str] = []
    for place, folders, files in os.walk(folder):
        inside = Path(place)
        for name in folders:
            relative = f"{(inside / name).relative_to(folder).as_posix()}/"
            if name.startswith("."):
                hidden.append(relative)
            elif (inside / name).is_symlink():
                other.append(relative)  # may lead back here
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            file = inside / name
            relative = file.relative_to(folder).as_posix()
            if name.startswith("."):
                hidden.append(relative)
            elif file.suffix.lower() in TEXTS and file.is_file():
                read.append((file, relative))
            else:
                other.append(relative)
    if not read:
        raise DataError(
            f"{folder} holds no text files ({', '.join(TEXTS)})"
            + (f"; not read: {_counted(other)}" if other else "")
        )
    read.sort(key=lambda entry: entry[1])
    documents = collected(
        (sample for file, relative in read for sample in _of_file(file, relative, spec)),
        str(folder),
    )
    notes = [f"read {len(read):,} text files of {folder}: {len(documents.samples):,} documents"]
    if other:
        notes.append(f"not read, no text files (convert them to text): {_counted(other)}")
    if hidden:
        notes.append(f"not read, hidden: {_counted(hidden)}")
    return Documents(documents.samples, notes + documents.notes)


def _counted(names: Sequence[str]) -> str:
    """Return how many there are, by suffix, and the names of the first."""
    kinds = Counter(Path(name).suffix.lower() or "no suffix" for name in names)
    listed = ", ".join(f"{kind} {count:,}" for kind, count in kinds.most_common(_NAMED))
    shown = ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
    return f"{len(names):,} ({listed}): {shown}"


def _of_file(path: Path, origin: str, spec: DataSpec) -> Iterator[Sample]:
    file = DataFile(path, spec.encoding)
    try:
        with file.open_text() as stream:
            text = stream.read()
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror or error}") from None
    if (complaint := file.undecoded(text, 1)) is not None:
        raise DataError(complaint)
    if file.suffix in HTML:
        text = html_to_text(text)
    if spec.document_start is None:
        yield Sample.plain(text, origin)
        return
    begins = re.compile(spec.document_start)
    lines: list[str] = []
    start = 1
    for number, line in enumerate(text.splitlines(keepends=True), start=1):
        if begins.search(line.rstrip("\r\n")) and "".join(lines).strip():
            yield Sample.plain("".join(lines), f"{origin}:{start}")
            lines, start = [], number
        lines.append(line)
    yield Sample.plain("".join(lines), f"{origin}:{start}")
