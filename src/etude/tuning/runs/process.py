"""Which process writes a run: identity, signals and heartbeat.

A process id alone says little: after a crash or a restart the system gives it to another program.
Together with the moment at which its process started it is unique on one machine.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

BEAT_SECONDS = 5.0
"""Time between two heartbeats."""

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def host() -> str:
    """Return the name of this machine."""
    return socket.gethostname()


@cache
def boot() -> str:
    """Return an id that changes with each start of the machine; empty where there is none."""
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except OSError:
        return ""


def started(pid: int) -> str | None:
    """Return when process `pid` started, in a form to be compared only; None if there is none.

    On Linux the id of the machine's start, and clock ticks since then: setting the clock changes
    neither. A process that has ended, but that its parent has not collected, counts as none.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except FileNotFoundError:
        return None if Path("/proc/self").exists() else _started_elsewhere(pid)
    except OSError:
        return None
    # The name in the second field may contain spaces and brackets; fields are counted after it.
    fields = stat.rpartition(")")[2].split()
    state, ticks = fields[0], fields[19]
    return None if state in "ZX" else f"{boot()}:{ticks}"


def _started_elsewhere(pid: int) -> str | None:
    """Return the start of a process on a system without /proc."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return f"{process.create_time():.2f}"
    except psutil.Error:
        return None


def signature() -> dict[str, Any]:
    """Return what identifies this process: `pid`, `started` and `host`."""
    return {"pid": os.getpid(), "started": started(os.getpid()), "host": host()}


def is_process(record: dict[str, Any]) -> bool:
    """Whether the process with the `signature` in `record` is alive on this machine."""
    pid, when = record.get("pid"), record.get("started")
    if not isinstance(pid, int) or record.get("host", host()) != host():
        return False
    # Versions that recorded no start: the id must do.
    return started(pid) == when if when else started(pid) is not None


def send(record: dict[str, Any], number: signal.Signals) -> bool:
    """Send a signal to the process with the `signature` in `record`, and to no other.

    Returns:
        Whether it was alive.
    """
    pid = record.get("pid")
    if not isinstance(pid, int) or pid <= 1:
        return False
    if not hasattr(os, "pidfd_open"):
        if not is_process(record):
            return False
        with suppress(ProcessLookupError):
            os.kill(pid, number)
        return True
    try:
        process = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        # Checked after opening: what is open cannot become another process.
        if not is_process(record):
            return False
        signal.pidfd_send_signal(process, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(process)
    return True


class Heartbeat:
    """Sets the modification time of a file every `BEAT_SECONDS`, as long as its process runs.

    A thread does it, and kernels release the interpreter's lock while they compute, so that a long
    step does not delay it. It needs no space on a disk that is full.

    Args:
        file: created if it is missing.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        with suppress(OSError):
            self.file.touch()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._end.wait(BEAT_SECONDS):
            # A run that was removed has no file left, and gets none.
            with suppress(OSError):
                os.utime(self.file)
