"""Exclusive file lock that reports the process which holds it.

The lock is the kernel's (flock), so it is released when its process ends, however it ends. The lock
file remains, and contains the holder's pid for error messages.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from etude.core.errors import LockHeldError

_held: set[FileLock] = set()


def _drop_inherited() -> None:
    # flock is shared with forked children: a data-loading worker would keep the file locked after
    # its parent was killed. Programs that are executed inherit it only by `pass_fds`.
    for lock in _held:
        lock.release_inherited()
    _held.clear()


os.register_at_fork(after_in_child=_drop_inherited)


class FileLock:
    """An exclusive lock on `file`, between processes and between the threads of one.

        with FileLock(folder / ".lock"):
            ...

    Args:
        file: the lock file; created if missing, in a folder that exists.
        wait: whether to wait for another holder to release it; otherwise a held lock is an error.
        waiting: called once, before waiting.
    """

    def __init__(
        self,
        file: Path,
        *,
        wait: bool = False,
        waiting: Callable[[], object] | None = None,
    ) -> None:
        self.file, self.wait, self.waiting = file, wait, waiting
        self._descriptor: int | None = None

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    @property
    def descriptor(self) -> int:
        """The open file. A program that inherits it (`pass_fds`) holds the lock as well.

        Raises:
            ValueError: the lock is not held.
        """
        if self._descriptor is None:
            raise ValueError(f"{self.file} is not locked")
        return self._descriptor

    def acquire(self) -> None:
        """Take the lock, until `release` or the end of the process; a second call does nothing.

        Raises:
            LockHeldError: another process, or another lock of this one, holds it.
            OSError: the file cannot be opened for writing.
        """
        if self._descriptor is not None:
            return
        descriptor = os.open(self.file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            self._lock(descriptor)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        _held.add(self)

    def _lock(self, descriptor: int) -> None:
        if _try_lock(descriptor, fcntl.LOCK_EX):
            return
        if self.wait:
            if self.waiting is not None:
                self.waiting()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            return
        # A reader that calls `is_held` holds the lock for an instant, so try again.
        for _ in range(4):
            time.sleep(0.02)
            if _try_lock(descriptor, fcntl.LOCK_EX):
                return
        raise LockHeldError(self.file, _pid_in(descriptor))

    def release(self) -> None:
        """Release the lock; does nothing where it is not held."""
        if self._descriptor is not None:
            _held.discard(self)
            os.close(self._descriptor)
        self._descriptor = None

    def release_inherited(self) -> None:
        """Close a forked child's copy of the descriptor; the parent keeps the lock."""
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor = None

    def is_held(self) -> bool:
        """Return whether some process, this one included, holds the lock."""
        try:
            descriptor = os.open(self.file, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            return not _try_lock(descriptor, fcntl.LOCK_SH)
        finally:
            os.close(descriptor)


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _pid_in(descriptor: int) -> int | None:
    """Return the pid that the holder wrote; None if it has not yet done so."""
    content = os.pread(descriptor, 32, 0).strip()
    return int(content) if content.isdigit() else None
