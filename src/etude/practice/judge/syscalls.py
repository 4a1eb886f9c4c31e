"""System calls that Python's standard library does not offer, called by number through libc.

Linux on x86-64 and AArch64. Each function raises `OSError` with the kernel's errno.
"""

from __future__ import annotations

import ctypes
import os
import platform
from pathlib import Path

MACHINE = platform.machine()
X86 = MACHINE in ("x86_64", "AMD64")

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_REC, MS_PRIVATE = 1 << 12, 1 << 14, 1 << 18

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38

_HUGE = 2 << 20
_MADV_COLLAPSE = 25

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def system_call(number: int, *arguments: int | ctypes.Array[ctypes.c_char] | bytes | None) -> int:
    """Call the kernel by number; bytes and buffers are passed by their address."""
    words: list[
        ctypes.c_long | ctypes.c_void_p | ctypes.Array[ctypes.c_char] | ctypes.c_char_p
    ] = []
    for value in arguments:
        if isinstance(value, int):
            words.append(ctypes.c_long(value))
        elif isinstance(value, bytes):
            words.append(ctypes.c_char_p(value))
        elif value is None:
            words.append(ctypes.c_void_p(None))
        else:
            words.append(value)
    return _checked(_libc.syscall(ctypes.c_long(number), *words))


def prctl(option: int, value: int) -> None:
    """Change an attribute of this process."""
    zero = ctypes.c_ulong(0)
    _checked(_libc.prctl(ctypes.c_int(option), ctypes.c_ulong(value), zero, zero, zero))


def unshare(flags: int) -> None:
    """Leave the namespaces named by `flags` for new ones."""
    _checked(_libc.unshare(ctypes.c_int(flags)))


def setns(descriptor: int, flags: int) -> None:
    """Enter the namespace that `descriptor` refers to."""
    _checked(_libc.setns(ctypes.c_int(descriptor), ctypes.c_int(flags)))


def mount(
    source: str, target: str, kind: str | None, flags: int, options: str | None = None
) -> None:
    """Mount a file system."""
    _checked(
        _libc.mount(
            source.encode(),
            target.encode(),
            kind.encode() if kind else None,
            ctypes.c_ulong(flags),
            options.encode() if options else None,
        )
    )


def drop_capabilities() -> None:
    """Drop every capability, irrevocably."""
    for capability in range(64):
        try:
            prctl(PR_CAPBSET_DROP, capability)
        except OSError:
            break  # past the kernel's last one, or without the right to drop, when none is left
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this process
    none = (ctypes.c_uint32 * 6)()
    _checked(_libc.capset(header, none))


def collapse_memory() -> None:
    """Collapse this process's memory into huge pages where the kernel can (6.1 and newer).

    A fork copies an entry for each page, which for 220 MB of small pages is most of its time.
    """
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, rights, _, _, inode, *_ = line.split()
        first, last = (int(end, 16) for end in span.split("-"))
        first, last = -(-first // _HUGE) * _HUGE, last // _HUGE * _HUGE
        if inode == "0" and rights.startswith("rw") and last > first:
            _libc.madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), _MADV_COLLAPSE)
