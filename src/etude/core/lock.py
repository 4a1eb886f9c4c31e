"""FolderLock: one process writes a folder, and whoever else tries is told which one does.

The lock is the kernel's (flock), so it is gone the moment its process is, however it ended; the
file that carries it stays and holds the writer's pid for the message.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from etude.core.errors import RunError

_held: set[int] = set()


def _drop_inherited() -> None:
    # flock is shared with forked children: a data-loading worker would keep the folder locked
    # after its parent was killed.
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_drop_inherited)


class FolderLock:
    """The right to write `folder`, held by at most one `FolderLock` on the machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Become the only writer, until `release` or the end of the process.

        Raises:
            RunError: another process, or another part of this one, is writing the folder.
        """
        if self._descriptor in _held:
            return
        try:
            descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise RunError(f"cannot lock {self.folder}: {error.strerror}") from None
        # A reader that asks `is_held` has the lock for an instant: worth another try.
        for attempt in range(5):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if attempt < 4:
                    time.sleep(0.02)
        else:
            pid = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise RunError(
                f"{self.folder} is being written by process {pid}; wait for it to end or stop it"
            )
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        _held.add(descriptor)
        self._descriptor = descriptor

    def release(self) -> None:
        """Let others write; without the lock, nothing happens."""
        if self._descriptor in _held:
            _held.remove(self._descriptor)
            os.close(self._descriptor)
        self._descriptor = None

    def is_held(self) -> bool:
        """Whether some process, this one included, is writing the folder."""
        try:
            descriptor = os.open(self._file, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(descriptor)
        return False

    @property
    def _file(self) -> Path:
        return self.folder / ".lock"
