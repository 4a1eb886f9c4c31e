"""What is new in runs, read from their files: whether the list has changed, and further metrics.

A position in the metrics is `OFFSET-CHECKSUM`: the byte at which the last line that was read ends,
and a checksum of what stands before it. A run that was resumed has rewritten its records after the
checkpoint; then the checksum differs, and reading begins anew instead of showing a point twice. (An
inode would not do: the system gives it to a later file.) A last line that is still being written,
or was cut short, is not read.
"""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from etude.core.errors import RunError

PORTION = 500
"""Records in one portion."""

_POSITION = re.compile(r"0|[1-9][0-9]{0,17}-[0-9a-f]{8}")

_CHECKED = 64
"""Bytes before a position that are compared."""


_BLOCK = 65_536
"""Bytes that are read at a time from the end of a file."""


@dataclass(frozen=True)
class Portion:
    """Consecutive records of a run."""

    position: str
    """Behind the last of them."""
    records: list[dict[str, Any]]
    anew: bool
    """Whether these are the file's first: what was read before is void."""


class MetricsTail:
    """The end of a run's metrics.jsonl, wherever reading was left."""

    def __init__(self, file: Path) -> None:
        self._file = file

    @classmethod
    def of_run(cls, base: Path, name: str) -> MetricsTail:
        """Return the tail of a run's metrics.

        Args:
            base: folder that runs are kept in.
            name: of the run's folder; anything else, a path for one, is no run.

        Raises:
            RunError: there is no such run.
        """
        from etude.tuning.runs.folder import RunFolder

        folder = run_named(base, name)
        return cls(RunFolder(folder).metrics)

    def position(self) -> str:
        """Return where the last whole line ends now."""
        try:
            with self._file.open("rb") as stream:
                end = _end_of_lines(stream)
                return _position(_before(stream, end), end)
        except FileNotFoundError:
            return "0"

    def after(self, position: str) -> Iterator[Portion]:
        """Yield the whole lines after a position; from the beginning if the file is another one."""
        found = read_after(self._file, position)
        lines = found.content.splitlines(keepends=True)
        if not lines and not (found.anew and position):
            return
        read = 0
        for first in range(0, max(1, len(lines)), PORTION):
            portion = lines[first : first + PORTION]
            read += sum(map(len, portion))
            records = [_record(line, self._file) for line in portion]
            yield Portion(found.position(read), records, found.anew and first == 0)


@dataclass(frozen=True)
class Lines:
    """Whole lines of a metrics.jsonl."""

    content: bytes
    start: int
    """Offset of the first."""
    before: bytes
    """What stands before it, at most `_CHECKED` bytes."""
    anew: bool
    """Whether they are the file's first, as what was read before is void."""

    def position(self, read: int) -> str:
        """Return the position behind the first `read` bytes of the content."""
        near = self.content[max(0, read - _CHECKED) : read]
        return _position((self.before + near)[-_CHECKED:], self.start + read)


def read_after(file: Path, position: str) -> Lines:
    """Return the whole lines after a position.

    Args:
        file: a metrics.jsonl; missing, it is empty.
        position: as returned before; empty for the beginning.

    Raises:
        RunError: the file cannot be read.
    """
    try:
        with file.open("rb") as stream:
            start = int(position.partition("-")[0]) if _POSITION.fullmatch(position) else 0
            before = _before(stream, start)
            anew = len(before) < min(start, _CHECKED) or _position(before, start) != position
            if anew:
                start, before = 0, b""
            stream.seek(start)
            content = stream.read()
    except FileNotFoundError:
        return Lines(b"", 0, b"", position != "0")
    except OSError as error:
        raise RunError(f"cannot read {file}: {error.strerror}") from None
    return Lines(content[: content.rfind(b"\n") + 1], start, before, anew)


def _before(stream: BinaryIO, offset: int) -> bytes:
    """Return what stands before an offset, less where the file is shorter."""
    first = max(0, offset - _CHECKED)
    stream.seek(first)
    return stream.read(offset - first)


def _position(before: bytes, offset: int) -> str:
    return f"{offset}-{zlib.crc32(before):08x}" if offset else "0"


def _end_of_lines(stream: BinaryIO) -> int:
    """Return the offset behind the last line end."""
    end = stream.seek(0, 2)
    while end > 0:
        begin = max(0, end - _BLOCK)
        stream.seek(begin)
        newline = stream.read(end - begin).rfind(b"\n")
        if newline >= 0:
            return begin + newline + 1
        end = begin
    return 0


def records_from_end(file: Path) -> Iterator[dict[str, Any]]:
    """Yield the whole records of a metrics.jsonl, the last first; no more is read than is taken.

    Raises:
        RunError: a line is no record, or the file cannot be read.
    """
    try:
        with file.open("rb") as stream:
            end, rest = _end_of_lines(stream), b""
            while end > 0:
                begin = max(0, end - _BLOCK)
                stream.seek(begin)
                content = stream.read(end - begin) + rest
                if begin:  # its first line may have begun before
                    head, newline, content = content.partition(b"\n")
                    rest = head + newline
                for line in reversed(content.splitlines()):
                    yield _record(line, file)
                end = begin
    except FileNotFoundError:
        return
    except OSError as error:
        raise RunError(f"cannot read {file}: {error.strerror}") from None


def run_named(base: Path, name: str) -> Path:
    """Return the folder of the run that has exactly this name.

    Raises:
        RunError: there is none.
    """
    folder = base / name
    named = "/" not in name and name not in ("", ".", "..")
    try:
        found = named and not folder.is_symlink() and (folder / "state.json").is_file()
    except OSError:  # longer than a file's name may be
        found = False
    if not found:
        raise RunError(f"there is no run {name!r}; it may have been deleted")
    return folder


def runs_signature(base: Path) -> str:
    """Return a text that changes when a run appears, vanishes, or changes its state."""
    from etude.tuning.runs.folder import list_runs

    states = [
        (run.name, (run.path / "state.json").stat().st_mtime_ns, run.state)
        for run in list_runs(base)
    ]
    return hashlib.sha256(repr(states).encode()).hexdigest()[:16]


def _record(line: bytes, file: Path) -> dict[str, Any]:
    try:
        record: Any = json.loads(line)
    except ValueError:
        record = None
    if not isinstance(record, dict):
        raise RunError(f"{file}{_place(line, file)}: not a JSON object")
    return cast("dict[str, Any]", record)


def _place(wanted: bytes, file: Path) -> str:
    """Return `, line N` of a line; the file is read from its beginning for that."""
    with suppress(OSError), file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.rstrip(b"\r\n") == wanted.rstrip(b"\r\n"):
                return f", line {number}"
    return ""
