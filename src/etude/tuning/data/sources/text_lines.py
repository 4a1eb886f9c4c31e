"""Text files: UTF-8, with the location of the first invalid byte.

It registers no source.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TextIO

_UNDECODED = re.compile("[\udc80-\udcff]")
"""What `surrogateescape` makes of bytes that are not UTF-8; nothing else decodes to these."""


def open_text(file: Path, newline: str | None = None) -> TextIO:
    """Open a text file so that bytes that are not UTF-8 do not end the reading.

    They stay in the text as `not_utf8` finds them. The mark that Windows programs put before UTF-8
    text is dropped.
    """
    return file.open(encoding="utf-8-sig", errors="surrogateescape", newline=newline)


def not_utf8(file: Path, text: str, first_line: int) -> str | None:
    """Return the complaint about a piece of a file that is not UTF-8, None if it is.

    Args:
        file: that it is of.
        text: the piece, as `open_text` reads it.
        first_line: number of its first line, from 1.
    """
    found = None if text.isascii() else _UNDECODED.search(text)
    if found is None:
        return None
    line = first_line + text.count("\n", 0, found.start())
    byte = ord(found.group()) - 0xDC00
    return f"{file.name} is not UTF-8: byte {byte:#04x} in line {line}; save it as UTF-8"
