"""Landlock ruleset: restricts the files that a submission may access.

A ruleset is made once and applied to every run. Kernel 5.13 supports files, 6.7 (ABI 4) TCP ports,
6.12 (ABI 6) signals and abstract sockets to processes outside the sandbox. Documentation:
https://docs.kernel.org/userspace-api/landlock.html
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from contextlib import suppress

from etude.practice.judge.syscalls import system_call

_CREATE, _ADD, _RESTRICT = 444, 445, 446
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1, 2, 4, 8
READ = EXECUTE | READ_FILE | READ_DIR
_FILE_RIGHTS = EXECUTE | WRITE_FILE | READ_FILE | 1 << 14 | 1 << 15


def abi() -> int:
    """Return the kernel's Landlock version, or 0 without Landlock."""
    try:
        return system_call(_CREATE, None, 0, 1)
    except OSError:
        return 0


def _handled(version: int) -> tuple[int, int, int]:
    """Return all access rights to files, network and other processes that this kernel can deny."""
    files = (1 << 13) - 1
    files |= (1 << 13 if version >= 2 else 0) | (1 << 14 if version >= 3 else 0)
    files |= 1 << 15 if version >= 5 else 0
    return files, 3 if version >= 4 else 0, 3 if version >= 6 else 0


def make_ruleset(readable: Iterable[str], listable: Iterable[str], writable: Iterable[str]) -> int:
    """Return the descriptor of a ruleset that denies access to all but these paths.

    Args:
        readable: files, or folders with everything below them.
        listable: folders that may be listed, with all folders below.
        writable: folders with full access.
    """
    version = abi()
    files, network, scoped = _handled(version)
    form = struct.pack("<QQQ", files, network, scoped)[
        : 24 if version >= 6 else 16 if version >= 4 else 8
    ]
    ruleset = system_call(_CREATE, form, len(form), 0)
    for paths, rights in ((readable, READ), (listable, READ_DIR), (writable, files)):
        for path in paths:
            with suppress(FileNotFoundError):
                allow(ruleset, path, rights & files)
    return ruleset


def allow(ruleset: int, path: str, rights: int) -> None:
    """Add `rights` on `path`, and on all that is below it, to a ruleset."""
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not os.path.isdir(path):  # noqa: PTH112 - called some hundred times at each start
            rights &= _FILE_RIGHTS
        system_call(_ADD, ruleset, 1, struct.pack("<Qi", rights, descriptor), 0)
    finally:
        os.close(descriptor)


def restrict(ruleset: int) -> None:
    """Apply a ruleset to this process, irrevocably."""
    system_call(_RESTRICT, ruleset, 0)
