"""Files of data: compression, encoding, and the location of the first byte that cannot be decoded.

It registers no source.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO, TextIO, cast

_UNDECODED = re.compile("[\udc80-\udcff]")
"""What `surrogateescape` makes of bytes that cannot be decoded; nothing else decodes to these."""

_MARKS = (
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
"""Byte order marks, and the encoding that reads each; longer ones first."""


@dataclass(frozen=True)
class DataFile:
    """A file, and how it is read."""

    path: Path

    encoding: str | None = None
    """None: by the byte order mark, else UTF-8."""

    separator: str | None = None
    """Between cells of CSV; None: by the header."""

    label: str | None = None
    """Name in messages; None: the file's own. Of several files each has another."""

    @property
    def name(self) -> str:
        """What rows are named by: `train.jsonl` in `train.jsonl:12`."""
        return self.label or self.path.name

    def __str__(self) -> str:
        return str(self.path)

    @property
    def compression(self) -> str:
        """The suffix of a compressed file, `.gz`; empty if it is not."""
        last = self.path.suffix.lower()
        return last if last in COMPRESSIONS else ""

    @property
    def suffix(self) -> str:
        """The suffix that says its kind: `.jsonl` of `rows.jsonl.gz`; lower case."""
        return (Path(self.path.stem) if self.compression else self.path).suffix.lower()

    def open_bytes(self) -> BinaryIO:
        """Open it, decompressed.

        Raises:
            OSError: it cannot be opened; errors of decompression come with the reading.
        """
        return COMPRESSIONS.get(self.compression, _plain)(self.path)

    def open_text(self, newline: str | None = None) -> TextIO:
        """Open it as text, so that bytes that cannot be decoded do not end the reading.

        They stay in the text as `undecoded` finds them. A byte order mark is dropped.
        """
        return io.TextIOWrapper(
            self.open_bytes(), encoding=self._encoding(), errors="surrogateescape", newline=newline
        )

    def _encoding(self) -> str:
        if self.encoding is not None:
            # A mark before UTF-8 is no part of the text.
            return "utf-8-sig" if self.encoding.lower() in ("utf-8", "utf8") else self.encoding
        with self.open_bytes() as stream:
            start = stream.read(4)
        marked = next((name for mark, name in _MARKS if start.startswith(mark)), None)
        if marked is None and len(start) == 4:
            # ASCII in two bytes a character, without a mark.
            zeros = [byte == 0 for byte in start]
            if zeros in ([False, True, False, True], [True, False, True, False]):
                marked = "utf-16-le" if zeros[1] else "utf-16-be"
        return marked or "utf-8-sig"

    def undecoded(self, text: str, first_line: int) -> str | None:
        """Return the complaint about a piece that could not be decoded, None if it could.

        Args:
            text: the piece, as `open_text` reads it.
            first_line: number of its first line, from 1.
        """
        found = None if text.isascii() else _UNDECODED.search(text)
        if found is None:
            return None
        line = first_line + text.count("\n", 0, found.start())
        byte = ord(found.group()) - 0xDC00
        if self.encoding is not None:
            return f"{self.name} is not {self.encoding}: byte {byte:#04x} in line {line}"
        western = bytes([byte]).decode("cp1252", "replace")
        return (
            f"{self.name} is not UTF-8: byte {byte:#04x} in line {line} ({western!r} in cp1252); "
            "save it as UTF-8, or name its encoding by data.encoding"
        )


def _plain(path: Path) -> BinaryIO:
    return path.open("rb")


def _by_module(name: str) -> Callable[[Path], BinaryIO]:
    def opened(path: Path) -> BinaryIO:
        module: Any = import_module(name)
        return cast("BinaryIO", module.open(path, "rb"))

    return opened


def _open_zstd(path: Path) -> BinaryIO:
    # Python has none before 3.14; pyarrow has no types.
    arrow: Any = import_module("pyarrow")
    return cast("BinaryIO", io.BufferedReader(arrow.input_stream(str(path), compression="zstd")))


COMPRESSIONS: dict[str, Callable[[Path], BinaryIO]] = {
    ".gz": _by_module("gzip"),
    ".bz2": _by_module("bz2"),
    ".xz": _by_module("lzma"),
    ".zst": _open_zstd,
}
"""How compressed files are opened, by suffix."""

SIGNATURES = {
    b"\x1f\x8b": ".gz",
    b"BZh": ".bz2",
    b"\xfd7zXZ\x00": ".xz",
    b"\x28\xb5\x2f\xfd": ".zst",
}
"""What compressed data begin with."""


def decompression_errors() -> tuple[type[Exception], ...]:
    """Return what decompressors raise about damaged data, beside OSError."""
    import lzma
    import zlib

    return EOFError, zlib.error, lzma.LZMAError
