"""Files that are either the old or the new one, never half of each.

A process can be killed, and a disk can fill up, between any two bytes. So a file is written
aside, flushed to disk and renamed over the old one, which is one step of the file system.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, cast


def replace_file(file: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file aside, flush it to disk and rename it to `file`, all or nothing.

    Raises:
        OSError: nothing changed, and nothing is left aside.
    """
    descriptor, aside = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    try:
        os.fchmod(descriptor, 0o644)
        write(Path(aside))
        os.fsync(descriptor)
        Path(aside).replace(file)
    except BaseException:
        with suppress(OSError):
            Path(aside).unlink()
        raise
    finally:
        os.close(descriptor)
    _flush_folder(file.parent)


def to_json(content: Any, indent: int | None = None) -> str:
    """Return JSON as every reader takes it: numbers that are not finite become null."""
    return json.dumps(_finite(content), indent=indent, ensure_ascii=False, allow_nan=False)


def _finite(content: Any) -> Any:
    """Return `content` with null for every number that JSON cannot write."""
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in cast("dict[str, Any]", content).items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in cast("list[Any]", content)]
    return content


def drop_torn_line(descriptor: int) -> None:
    """Cut an open file after its last line end."""
    content = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.ftruncate(descriptor, whole)


def _flush_folder(folder: Path) -> None:
    """Bring a rename to disk; some systems cannot, and keep the order by themselves."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
