"""Control groups that limit the memory and the number of processes of a slot.

Uses version 2 where its controllers are available, version 1 otherwise. Support is detected by
creating a group: a mounted folder, or user id 0, proves nothing in a container.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
# Version 1 and version 2 names of the two limits.
_V1 = {"memory": "memory.limit_in_bytes", "pids": "pids.max"}
_V2 = {"memory": "memory.max", "pids": "pids.max"}


@dataclass(frozen=True)
class Group:
    """The control groups of one slot, one folder per controller."""

    folders: dict[str, Path]
    names: dict[str, str]

    def limit(self, memory: int, processes: int) -> None:
        """Set the limits on bytes of memory and on the number of processes and threads."""
        for controller, value in (("memory", memory), ("pids", processes)):
            if controller in self.folders:
                (self.folders[controller] / self.names[controller]).write_text(str(value))

    def join(self) -> None:
        """Move this process into the group."""
        for folder in set(self.folders.values()):
            (folder / "cgroup.procs").write_text(str(os.getpid()))

    def remove(self) -> None:
        """Remove the group, unless it still has a process."""
        for folder in set(self.folders.values()):
            with suppress(OSError):
                folder.rmdir()


def make(name: str) -> Group | None:
    """Return a new child group `name`, or None where that is not permitted."""
    folders: dict[str, Path] = {}
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    version_2 = (ROOT / "cgroup.controllers").exists()
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if version_2 and not controllers:
            own = ROOT / path.lstrip("/")
            with suppress(OSError):
                (own / name).mkdir(exist_ok=True)
                folders |= {
                    key: own / name for key, file in _V2.items() if (own / name / file).exists()
                }
        for controller in set(controllers.split(",")) & set(_V1) if not version_2 else ():
            with suppress(OSError):
                own = ROOT / controller / path.lstrip("/") / name
                own.mkdir(exist_ok=True)
                folders[controller] = own
    group = Group(folders, _V2 if version_2 else _V1)
    try:
        group.limit(1 << 30, 64)
    except OSError:
        group.remove()
        return None
    return group if "memory" in folders else None
