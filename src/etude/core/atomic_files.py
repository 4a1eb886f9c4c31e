"""Files and folders that are either the old or the new one, never half of each.

A process can be killed, and a disk can fill up, between any two bytes. So a file or folder is
written aside, flushed to disk and renamed over the old one, which is one step of the file system.
"""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, cast


def replace_file(file: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file aside, flush it to disk and rename it to `file`, all or nothing.

    `write` may also replace the file that it is given, as linkers do.

    Raises:
        OSError: nothing changed, and nothing is left aside.
    """
    descriptor, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    os.close(descriptor)
    aside = Path(name)
    try:
        write(aside)
        aside.chmod(0o644)
        flush(aside)
        aside.replace(file)
    except BaseException:
        with suppress(OSError):
            aside.unlink()
        raise
    _flush_folder(file.parent)


def replace_bytes(file: Path, content: bytes) -> None:
    """Replace `file` by one that holds `content`; see `replace_file`."""
    replace_file(file, lambda aside: aside.write_bytes(content))


def replace_text(file: Path, text: str) -> None:
    """Replace `file` by one that holds `text` in UTF-8; see `replace_file`."""
    replace_bytes(file, text.encode())


def make_folder_aside(folder: Path) -> Path:
    """Make an empty hidden sibling of `folder`, to be filled and given to `replace_folder`.

    Raises:
        OSError: it cannot be made.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))


def replace_folder(aside: Path, folder: Path) -> None:
    """Flush all of `aside` to disk and rename it to `folder`; what was there goes only after that.

    Both are on one file system. Programs that have files of the old folder open keep them.

    Raises:
        OSError: the old folder is as it was, and `aside` is still there.
    """
    for below, _, names in os.walk(aside):
        for file in (Path(below) / name for name in names):
            # Temporary folders, and files that some libraries write, are for their owner only.
            file.chmod(0o644)
            flush(file)
        Path(below).chmod(0o755)
        _flush_folder(Path(below))
    old = aside.with_name(f"{aside.name}.old")
    while True:
        with suppress(FileNotFoundError):
            folder.rename(old)
        try:
            aside.rename(folder)
            break
        except OSError as error:
            if old.exists():
                old.rename(folder)
                raise
            # Another process has put its own there in between: that one is replaced, then.
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
    _flush_folder(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def remove_folder(folder: Path) -> None:
    """Remove a folder in one step for whoever looks at it: it is renamed, then deleted.

    Raises:
        OSError: it is not there or cannot be renamed, or a part of it cannot be deleted.
    """
    doomed = folder.with_name(f".removed-{folder.name}")
    shutil.rmtree(doomed, ignore_errors=True)
    folder.rename(doomed)
    shutil.rmtree(doomed)


def flush(file: Path) -> None:
    """Wait until the content of `file` is on the disk."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
        flush(folder)
