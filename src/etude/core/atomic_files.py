"""Atomic replacement of files and folders.

A process can be killed, and a disk can fill up, between any two bytes. So a file or folder is
written to a temporary sibling, flushed to disk and renamed over the old one, which is atomic.
"""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

from etude.core.errors import innermost_reason


def replace_file(file: Path, write: Callable[[Path], object]) -> None:
    """Replace `file` atomically with what `write` writes to a temporary file.

    `write` may also replace the file at the path that it receives, as linkers do.

    Raises:
        OSError: nothing changed, and no temporary file is left.
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
    """Replace `file` with `content`; see `replace_file`."""
    replace_file(file, lambda aside: aside.write_bytes(content))


def replace_text(file: Path, text: str) -> None:
    """Replace `file` with `text` in UTF-8; see `replace_file`."""
    replace_bytes(file, text.encode())


def replace_output(file: Path, text: str) -> None:
    """Write the output file that a person named: whole, or as it was before.

    A device or a pipe is written to, a link is followed, and where the folder may not be written
    to the file itself is.

    Raises:
        OSError: a file that was there is unchanged.
    """
    target = file.resolve()
    if target.exists() and not target.is_file():
        target.write_bytes(text.encode())
        return
    try:
        replace_text(target, text)
    except PermissionError:
        target.write_bytes(text.encode())


def make_folder_aside(folder: Path) -> Path:
    """Create an empty hidden sibling of `folder`, to be filled and passed to `replace_folder`.

    Raises:
        OSError: the folder cannot be created.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))


def replace_folder(aside: Path, folder: Path) -> None:
    """Flush all of `aside` to disk and rename it to `folder`; then delete the old folder.

    Both must be on one file system. Programs that have files of the old folder open keep them.

    Raises:
        OSError: the old folder is unchanged, and `aside` is still there.
    """
    for below, _, names in os.walk(aside):
        for file in (Path(below) / name for name in names):
            # Temporary folders, and files that some libraries write, are private to their owner.
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
            # Another process has created the folder in the meantime: replace that one.
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
    _flush_folder(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def new_folder(folder: Path) -> Generator[Path]:
    """Yield an empty folder to fill, which becomes `folder` at the end: whole, or not at all.

    Raises:
        OSError: it cannot be made; nothing of it is left.
    """
    missing = [parent for parent in folder.parents if not parent.exists()]
    aside = None
    try:
        aside = make_folder_aside(folder)
        yield aside
        replace_folder(aside, folder)
    except BaseException:
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)
        with suppress(OSError):
            for parent in missing:
                parent.rmdir()
        raise


def remove_folder(folder: Path) -> None:
    """Remove a folder atomically: it is renamed first, then deleted.

    Raises:
        OSError: the folder does not exist or cannot be renamed, or a part cannot be deleted.
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


def is_disk_full(error: OSError) -> bool:
    """Whether a write failed for want of space, or of what this user or process may use of it."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def disk_reason(error: OSError) -> str:
    """Return why a file could not be read or written, without its name."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return "the disk is full" if full else error.strerror or innermost_reason(error)


def to_json(content: Any, indent: int | None = None) -> str:
    """Return strict JSON, in which numbers that are not finite become null."""
    return json.dumps(_finite(content), indent=indent, ensure_ascii=False, allow_nan=False)


def _finite(content: Any) -> Any:
    """Return `content` with null for every number that is not finite."""
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in cast("dict[str, Any]", content).items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in cast("list[Any]", content)]
    return content


def drop_torn_line(descriptor: int) -> None:
    """Truncate an open file after its last newline."""
    content = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.ftruncate(descriptor, whole)


def _flush_folder(folder: Path) -> None:
    """Flush a rename to disk, on file systems that support it."""
    with suppress(OSError):
        flush(folder)
