"""Waiting of OpenMP's threads, on a machine that other programs use as well.

PyTorch's threads meet at the end of every parallel loop, thousands of times a second. Those that
arrive early spin: GNU's runtime (libgomp, PyTorch's on Linux) for some 300,000 turns, several
milliseconds, before they sleep. If another program has the core of the one that is late, its turn
on that core is about as long, so the spinning thread keeps the other core occupied and the late one
cannot move there. Short spinning leaves the core in time, and still bridges the microseconds
between two loops, for which falling asleep and waking costs more than the wait.

The runtime reads its environment once, when it is loaded: with PyTorch.
"""

from __future__ import annotations

import os
import sys
from collections.abc import MutableMapping

SPIN_COUNT = 1000
"""Turns that a thread spins before it sleeps; see benchmarks/busy.py and docs/performance.md."""

OWN_SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""A person's own word on waiting; any of them leaves everything as it is."""


def set_waiting(environment: MutableMapping[str, str] | None = None) -> bool:
    """Let this process's OpenMP threads spin shortly; call it before PyTorch is imported.

    Args:
        environment: of the process; None: its own.

    Returns:
        Whether it was set: not where the user chose otherwise, or PyTorch is already loaded.
    """
    environment = os.environ if environment is None else environment
    if "torch" in sys.modules or any(name in environment for name in OWN_SETTINGS):
        return False
    environment["GOMP_SPINCOUNT"] = str(SPIN_COUNT)
    return True
