"""Sandbox: the layers of isolation of a submission, and which of them this machine supports.

| layer | denies | where |
|---|---|---|
| limits | memory, CPU time, file size, open files, processes | everywhere |
| no_new_privs, capabilities | gaining privileges | everywhere |
| seccomp | system calls that are not on a list | Linux, x86-64 and AArch64 |
| landlock | files, TCP, signals and sockets to the outside | kernel 5.13, 6.7, 6.12 |
| namespaces | seeing other processes, any network, a shared /tmp | root, or user namespaces |
| user | being the judge's own user | root: one unprivileged user per slot |
| cgroup | memory and processes counted together | where a group can be created |

The level reached is the number of names in `Level.layers`. A judge that requires a layer fails with
an error where it is not available.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import sysconfig
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from etude.practice.judge import cgroups, landlock, seccomp, syscalls

LAYERS = ("limits", "seccomp", "landlock", "namespaces", "user", "cgroup")
FIRST_USER = 61200
SCRATCH_BYTES = 16 << 20
_QUIET = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
_SHARED = (
    syscalls.CLONE_NEWNS | syscalls.CLONE_NEWNET | syscalls.CLONE_NEWIPC | syscalls.CLONE_NEWUTS
)


@dataclass(frozen=True)
class Level:
    """The isolation available to a judge on this machine."""

    layers: tuple[str, ...]
    landlock: int = 0
    """The kernel's Landlock version."""

    @property
    def missing(self) -> tuple[str, ...]:
        """Return the layers that this machine does not support."""
        return tuple(layer for layer in LAYERS if layer not in self.layers)

    def describe(self) -> str:
        """Return a one-line description."""
        have = ", ".join(
            f"landlock {self.landlock}" if layer == "landlock" else layer for layer in self.layers
        )
        lacking = f"; not here: {', '.join(self.missing)}" if self.missing else ""
        return f"{len(self.layers)} of {len(LAYERS)} layers: {have}{lacking}"


def enter_namespaces(place: Path) -> bool:
    """Move this process and its children into namespaces without network or other processes.

    `place` is an empty folder; each run finds its own folder in it, `box/run`.
    To be called by a process with one thread. Its next child is the first process of a PID
    namespace. Without root, a user namespace gives the right to create the others.
    """
    user, group = os.geteuid(), os.getegid()
    try:
        if user == 0:
            syscalls.unshare(_SHARED | syscalls.CLONE_NEWPID)
        else:
            syscalls.unshare(syscalls.CLONE_NEWUSER | _SHARED | syscalls.CLONE_NEWPID)
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"65534 {user} 1")
            Path("/proc/self/gid_map").write_text(f"65534 {group} 1")
        syscalls.mount("none", "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
        # A folder that nobody can write to, in which each run mounts its own empty folder. Landlock
        # checks the folders above a mount, so one rule for `box` serves all runs.
        syscalls.mount("tmpfs", str(place), "tmpfs", syscalls.MS_NOSUID, "size=64k,mode=755")
        (place / "box" / "run").mkdir(parents=True)
        _bring_near(place / "lib")
        syscalls.mount("none", str(place), None, syscalls.MS_REMOUNT | syscalls.MS_RDONLY)
    except OSError:
        return False
    return True


def _bring_near(folder: Path) -> None:
    """Bind-mount packages that an unprivileged user cannot reach below `folder`.

    A Python in root's home folder is an example. Later imports come from the mounts.
    """
    moved: dict[str, str] = {}
    for index, entry in enumerate(sys.path):
        source = Path(entry)
        if source.is_dir() and not all(
            parent.stat().st_mode & 1 for parent in (source, *source.parents)
        ):
            target = folder / str(index) / source.name
            target.mkdir(parents=True)
            syscalls.mount(entry, str(target), None, syscalls.MS_BIND)
            flags = syscalls.MS_BIND | syscalls.MS_REMOUNT | syscalls.MS_RDONLY | syscalls.MS_NOSUID
            syscalls.mount("none", str(target), None, flags)
            moved[entry] = str(target)

    def near(path: str) -> str:
        for old, new in moved.items():
            if path == old or path.startswith(old + "/"):
                return new + path[len(old) :]
        return path

    sys.path[:] = [near(entry) for entry in sys.path]
    sys.path_importer_cache.clear()
    for module in list(sys.modules.values()):
        if isinstance(paths := getattr(module, "__path__", None), list):
            paths[:] = [near(path) for path in cast("list[str]", paths)]


def readable_paths() -> tuple[list[str], list[str]]:
    """Return the paths that Python and its packages read, and the folders that they list.

    The packages are named one by one, because Etude's own, which holds tests and solutions, must
    not be among them.
    """
    readable = [
        "/usr/lib",
        "/lib",
        "/lib64",
        "/usr/lib64",
        "/usr/share/zoneinfo",
        "/etc/ld.so.cache",
        "/dev/null",
        "/dev/zero",
        "/dev/urandom",
        "/dev/random",
    ]
    listable: list[str] = []
    standard = {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}
    packages = {
        str(Path(entry))
        for entry in sys.path
        if Path(entry).name in ("site-packages", "dist-packages")
    }
    for folder in sorted(path for path in standard | packages if path):
        with suppress(OSError):
            listable.append(folder)
            readable += [
                entry.path
                for entry in os.scandir(folder)
                if entry.name not in ("site-packages", "dist-packages")
                and not entry.name.lower().startswith(("etude", "__editable__"))
            ]
    libraries = Path(sys.base_prefix) / "lib"
    readable += [str(file) for file in libraries.glob("lib*.so*")]
    # /usr/lib would include the distribution's packages, possibly with an Etude among them.
    if any(
        folder.startswith(("/usr/lib/", "/lib/")) and (Path(folder) / "etude").exists()
        for folder in packages
    ):
        readable = [path for path in readable if path not in ("/usr/lib", "/lib")]
        readable += [
            str(path) for path in Path("/usr/lib").iterdir() if not path.name.startswith("python")
        ]
    return readable, listable


@dataclass
class Sandbox:
    """Sandbox made once by the zygote and entered by every run."""

    place: Path
    namespaces: bool
    user: bool
    landlock: int
    ruleset: int | None
    filters: bytes | None

    @classmethod
    def prepare(cls, place: Path, namespaces: bool) -> Sandbox:
        """Detect the available layers and create the resources that runs share."""
        version = landlock.abi()
        ruleset = None
        if version:
            readable, listable = readable_paths()
            ruleset = landlock.make_ruleset(
                readable, listable, [str(place / "box")] if namespaces else []
            )
        known = syscalls.X86 or syscalls.MACHINE == "aarch64"
        return cls(
            place,
            namespaces,
            os.geteuid() == 0,
            version,
            ruleset,
            seccomp.program() if known else None,
        )

    def level(self, cgroup: bool) -> Level:
        """Return the layers that confine runs."""
        have = {
            "limits": True,
            "seccomp": self.filters is not None,
            "landlock": self.ruleset is not None,
            "namespaces": self.namespaces,
            "user": self.user,
            "cgroup": cgroup,
        }
        return Level(tuple(layer for layer in LAYERS if have[layer]), self.landlock)

    def enter(self, slot: int, group: cgroups.Group | None) -> None:
        """Confine this process. Any failure raises: no run starts with fewer layers than stated."""
        os.setsid()
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
        if group is not None:
            group.join()
        if self.namespaces:
            # The submission's own empty folder, limited in size so that it cannot fill the disk.
            syscalls.unshare(syscalls.CLONE_NEWNS)
            options = f"size={SCRATCH_BYTES},nr_inodes=1024,mode=1777"
            syscalls.mount("tmpfs", str(self.place / "box" / "run"), "tmpfs", _QUIET, options)
            os.chdir(self.place / "box" / "run")
        self._limit()
        if self.user:
            identity = FIRST_USER + slot
            os.setgroups([])
            os.setresgid(identity, identity, identity)
            os.setresuid(identity, identity, identity)
        syscalls.drop_capabilities()
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)  # the change of user cleared it
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
        if self.ruleset is not None:
            landlock.restrict(self.ruleset)
        if self.filters is not None:
            seccomp.load(self.filters)

    @staticmethod
    def _limit() -> None:
        for what, value in (
            (resource.RLIMIT_CORE, 0),
            (resource.RLIMIT_FSIZE, SCRATCH_BYTES),
            (resource.RLIMIT_NOFILE, 64),
            (resource.RLIMIT_NPROC, 64),
            (resource.RLIMIT_MEMLOCK, 0),
            (resource.RLIMIT_MSGQUEUE, 0),
        ):
            resource.setrlimit(what, (value, value))


def limit_run(seconds: float, memory: int) -> None:
    """Set the limits of one problem: CPU time, and address space beyond the present use."""
    whole = int(seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (whole, whole + 1))
    resource.setrlimit(resource.RLIMIT_AS, (_mapped() + memory, _mapped() + memory))


def _mapped() -> int:
    """Return the address space of this process in bytes, measured before it is confined."""
    return _MAPPED[0] if _MAPPED else 0


_MAPPED: list[int] = []


def remember_mapped() -> None:
    """Store the size of the address space while /proc can still be read."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    _MAPPED[:] = [pages * resource.getpagesize()]
