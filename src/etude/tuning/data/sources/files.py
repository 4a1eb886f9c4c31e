"""`data.kind: files`. All kinds but a JSON array are read as a stream."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from etude.core.errors import DataError, did_you_mean
from etude.tuning.config.sections.data import DataSpec
from etude.tuning.data.sources.conll import looks_like_conll, read_conll
from etude.tuning.data.sources.registry import (
    READERS,
    RowSource,
    SourceRow,
    SourceRows,
    register_source,
    train_name,
)


def read_rows(path: str | os.PathLike[str]) -> Iterator[SourceRow]:
    """Return the rows of a file, read by what its name ends in.

    The file is opened and its kind checked at once; rows are read as they are asked for.

    Raises:
        DataError: the file is missing, a folder, empty, of an unknown kind, or not what its name
            says; a single row that is damaged comes as an `UnreadableRow`.
    """
    file = Path(path).expanduser()
    known = ", ".join(sorted(READERS))
    if file.is_dir():
        raise DataError(f"{file} is a folder; name a file in it ({known})")
    if not file.exists():
        near = [entry.name for entry in file.parent.iterdir()] if file.parent.is_dir() else []
        raise DataError(f"no data file at {file}{did_you_mean(file.name, near)}")
    suffix = file.suffix.lower()
    reader = READERS.get(suffix)
    # A .tsv without a header, or any other ending: words and tags are recognised by content.
    tagged = (reader is None or suffix in (".tsv", ".txt")) and looks_like_conll(file)
    if reader is None and not tagged:
        raise DataError(f"{file}: unknown file type {file.suffix!r}; known: {known}")
    if file.stat().st_size == 0:
        raise DataError(f"{file} is empty")
    if reader is None or tagged:
        return _guarded(file, partial(read_conll, with_text=suffix == ".txt"))
    return _guarded(file, reader.rows)


def _guarded(file: Path, rows: Callable[[Path], Iterator[SourceRow]]) -> Iterator[SourceRow]:
    """Read rows; turn what the machine complains of into one line that names the file."""
    try:
        yield from rows(file)
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror or error}") from None


def _rows(spec: DataSpec) -> SourceRows:
    return SourceRows(
        read_rows(train_name(spec)), None if spec.eval is None else read_rows(spec.eval)
    )


register_source(RowSource("files", _rows))
