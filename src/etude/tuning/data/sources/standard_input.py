"""Standard input as data: stored in a file, so that it can be read more than once.

It registers no source.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from etude.core.errors import DataError
from etude.tuning.data.sources.data_file import SIGNATURES, DataFile

NAME = "-"
"""What names standard input."""

_KINDS = {b"{": ".jsonl", b"[": ".json"}


def store(folder: Path) -> Path:
    """Copy standard input to a file in `folder`, named by its kind, and return the file.

    JSON Lines, a JSON array and Parquet are told by how they begin, compressed or not; what begins
    otherwise is read as CSV.

    Raises:
        DataError: standard input is a terminal or empty, or the file cannot be written.
    """
    if sys.stdin.isatty():
        raise DataError("standard input is a terminal; pipe the data into it, or name a file")
    file = folder / "stdin"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with file.open("wb") as stored:
            source = getattr(sys.stdin, "buffer", None)
            if source is None:  # replaced by a stream of text
                stored.write(sys.stdin.read().encode())
            else:
                shutil.copyfileobj(source, stored)
        if file.stat().st_size == 0:
            raise DataError("standard input is empty")
        named = file.with_name(f"stdin{_suffixes(file)}")
        file.rename(named)
    except OSError as error:
        raise DataError(f"cannot store standard input in {folder}: {error.strerror}") from None
    return named


def _suffixes(file: Path) -> str:
    with file.open("rb") as stream:
        start = stream.read(8)
    if start.startswith(b"PAR1"):
        return ".parquet"
    packed = next((suffix for mark, suffix in SIGNATURES.items() if start.startswith(mark)), "")
    if packed:
        compressed = file.with_name(f"stdin{packed}")
        file.rename(compressed)
        try:
            return _kind(DataFile(compressed)) + packed
        finally:
            compressed.rename(file)
    return _kind(DataFile(file))


def _kind(file: DataFile) -> str:
    try:
        with file.open_text() as text:
            first = text.read(4096).lstrip()[:1]
    # A damaged archive: whatever its kind, reading it says what is wrong.
    except Exception:
        first = "{"
    return _KINDS.get(first.encode("utf-8", "surrogateescape"), ".csv")
