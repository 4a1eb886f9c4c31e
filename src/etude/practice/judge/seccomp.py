"""Seccomp filter: the system calls that a submission may make; all others fail with EPERM.

An allow-list, written as a classic BPF program over `struct seccomp_data` (number, architecture,
six arguments). It denies new processes, sockets, signals to others, executables, and memory that no
limit counts. It allows threads, asking whether an open file is a terminal, and reading the limits
of the process. `clone3` fails with ENOSYS, upon which libc falls back to `clone`, whose flags the
filter can inspect.
"""

from __future__ import annotations

import ctypes
import errno
import struct

from etude.practice.judge.syscalls import X86, system_call

_ARCHITECTURE = 0xC000003E if X86 else 0xC00000B7
_LOAD, _JUMP_EQUAL, _JUMP_GREATER_EQUAL, _JUMP_SET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_KILL, _ERRNO, _ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
_CLONE_THREAD = 0x00010000
_NEW_NAMESPACES = 0x7E020000

# x86-64, AArch64; -1 where an architecture has no such system call.
ALLOWED: dict[str, tuple[int, int]] = {
    "read": (0, 63), "write": (1, 64), "open": (2, -1), "close": (3, 57), "stat": (4, -1),
    "fstat": (5, 80), "lstat": (6, -1), "poll": (7, -1), "lseek": (8, 62), "mmap": (9, 222),
    "mprotect": (10, 226), "munmap": (11, 215), "brk": (12, 214), "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "pread64": (17, 67),
    "pwrite64": (18, 68), "readv": (19, 65), "writev": (20, 66), "access": (21, -1),
    "pipe": (22, -1), "select": (23, -1), "sched_yield": (24, 124), "mremap": (25, 216),
    "madvise": (28, 233), "dup": (32, 23), "dup2": (33, -1), "nanosleep": (35, 101),
    "getpid": (39, 172), "exit": (60, 93), "uname": (63, 160), "fcntl": (72, 25),
    "fsync": (74, 82), "fdatasync": (75, 83), "truncate": (76, 45), "ftruncate": (77, 46),
    "getcwd": (79, 17), "chdir": (80, 49), "rename": (82, -1), "mkdir": (83, -1),
    "rmdir": (84, -1), "unlink": (87, -1), "readlink": (89, -1), "umask": (95, 166),
    "gettimeofday": (96, 169), "getrlimit": (97, 163), "getrusage": (98, 165),
    "sysinfo": (99, 179), "times": (100, 153), "getuid": (102, 174), "getgid": (104, 176),
    "geteuid": (107, 175), "getegid": (108, 177), "getppid": (110, 173), "sigaltstack": (131, 132),
    "gettid": (186, 178), "futex": (202, 98), "sched_getaffinity": (204, 123),
    "getdents64": (217, 61), "set_tid_address": (218, 96), "restart_syscall": (219, 128),
    "fadvise64": (221, 223), "clock_gettime": (228, 113), "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115), "exit_group": (231, 94), "openat": (257, 56),
    "mkdirat": (258, 34), "newfstatat": (262, 79), "unlinkat": (263, 35), "renameat": (264, 38),
    "readlinkat": (267, 78), "faccessat": (269, 48), "pselect6": (270, 72), "ppoll": (271, 73),
    "set_robust_list": (273, 99), "dup3": (292, 24), "pipe2": (293, 59), "getrandom": (318, 278),
    "membarrier": (324, 283), "statx": (332, 291), "rseq": (334, 293), "faccessat2": (439, 439),
}  # fmt: skip
_CLONE, _CLONE3, _IOCTL, _PRCTL, _PRLIMIT = (56, 220), (435, 435), (16, 29), (157, 167), (302, 261)
# TCGETS (is it a terminal?), FIONREAD (bytes available), FIONCLEX and FIOCLEX (close on exec).
_IOCTLS = (0x5401, 0x541B, 0x5450, 0x5451)
_PR_SET_NAME, _PR_GET_NAME = 15, 16


def _number(pair: tuple[int, int]) -> int:
    return pair[0] if X86 else pair[1]


def program() -> bytes:
    """Return the filter as an array of `struct sock_filter`."""
    code: list[tuple[int, int, int, int]] = []

    def add(operation: int, value: int, true: int = 0, false: int = 0) -> None:
        code.append((operation, true, false, value))

    def give(action: int, number: int = 0) -> None:
        add(_RETURN, action | number)

    add(_LOAD, 4)
    add(_JUMP_EQUAL, _ARCHITECTURE, 1, 0)
    give(_KILL)
    add(_LOAD, 0)
    if X86:  # the x32 ABI numbers the same calls again
        add(_JUMP_GREATER_EQUAL, 0x40000000, 0, 1)
        give(_ERRNO, errno.EPERM)
    for pair in ALLOWED.values():
        if _number(pair) >= 0:
            add(_JUMP_EQUAL, _number(pair), 0, 1)
            give(_ALLOW)
    add(_JUMP_EQUAL, _number(_CLONE3), 0, 1)
    give(_ERRNO, errno.ENOSYS)
    add(_JUMP_EQUAL, _number(_CLONE), 0, 5)
    add(_LOAD, 16)
    add(_JUMP_SET, _NEW_NAMESPACES, 2, 0)
    add(_JUMP_SET, _CLONE_THREAD, 0, 1)
    give(_ALLOW)
    give(_ERRNO, errno.EPERM)
    _one_of(code, _number(_IOCTL), 24, _IOCTLS, errno.ENOTTY)
    _one_of(code, _number(_PRCTL), 16, (_PR_SET_NAME, _PR_GET_NAME), errno.EPERM)
    _one_of(code, _number(_PRLIMIT), 16, (0,), errno.EPERM)
    give(_ERRNO, errno.EPERM)
    return b"".join(
        struct.pack("<HBBI", operation, true, false, value)
        for operation, true, false, value in code
    )


def _one_of(
    code: list[tuple[int, int, int, int]],
    number: int,
    offset: int,
    values: tuple[int, ...],
    otherwise: int,
) -> None:
    """Allow one call where the argument at `offset` is one of `values`."""
    code.append((_JUMP_EQUAL, 0, len(values) + 3, number))
    code.append((_LOAD, 0, 0, offset))
    for index, value in enumerate(values):
        code.append((_JUMP_EQUAL, len(values) - index, 0, value))
    code.append((_RETURN, 0, 0, _ERRNO | otherwise))
    code.append((_RETURN, 0, 0, _ALLOW))


def load(filters: bytes) -> None:
    """Apply the filter to this process, irrevocably; `no_new_privs` must be set."""
    buffer = ctypes.create_string_buffer(filters, len(filters))
    # struct sock_fprog { unsigned short len; struct sock_filter *filter; }
    form = struct.pack("<HxxxxxxQ", len(filters) // 8, ctypes.addressof(buffer))
    system_call(317 if X86 else 277, 1, 0, form)
