"""Control groups where one can really be made: memory and processes of a slot, counted together.

Version 2 where its controllers are at hand, version 1 otherwise. Whether it works is found out by
doing it: a folder that is there, or a user number 0, proves nothing in a container.
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
    """The control groups of one slot, one folder a controller."""

    folders: dict[str, Path]
    names: dict[str, str]

    def limit(self, memory: int, processes: int) -> None:
        """Set the limits: bytes of memory, number of processes and threads."""
        for controller, value in (("memory", memory), ("pids", processes)):
            if controller in self.folders:
                (self.folders[controller] / self.names[controller]).write_text(str(value))

    def join(self) -> None:
        """Move this process into the group."""
        for folder in set(self.folders.values()):
            (folder / "cgroup.procs").write_text(str(os.getpid()))

    def remove(self) -> None:
        """Take the group away; one that still has a process stays."""
        for folder in set(self.folders.values()):
            with suppress(OSError):
                folder.rmdir()


def make(name: str) -> Group | None:
    """Return a new group called `name` below our own, or None where that is not allowed."""
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
