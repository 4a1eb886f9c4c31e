"""Settings of the libraries below PyTorch, by their environment variables; a person's own win.

OpenMP: how threads wait on a machine that other programs use as well. PyTorch's threads meet at the
end of every parallel loop, thousands of times a second. Those that arrive early spin: GNU's runtime
(libgomp, PyTorch's on Linux) for some 300,000 turns, several milliseconds, before they sleep. If
another program has the core of the one that is late, its turn on that core is about as long, so the
spinning thread keeps the other core occupied and the late one cannot move there. Short spinning
leaves the core in time, and still bridges the microseconds between two loops, for which falling
asleep and waking costs more than the wait. The runtime reads its environment once, when it is
loaded: with PyTorch.

oneDNN: how many products it keeps the programs of. It makes one for each shape, a quarter to half a
megabyte in bfloat16, and keeps 1,024. Packed rows have hundreds of lengths, so that a long run held
0.3 to 0.5 GB of them. oneDNN reads its environment when the first product is computed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import MutableMapping

SPIN_COUNT = 1000
"""Turns that a thread spins before it sleeps; see benchmarks/busy.py and docs/performance.md."""

PRODUCTS = 256
"""Programs of products that oneDNN keeps: those of some 20 lengths of row, every layer's."""

_PRODUCT_SETTINGS = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "DNNL_PRIMITIVE_CACHE_CAPACITY")

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


def bound_products(environment: MutableMapping[str, str] | None = None) -> None:
    """Let oneDNN keep `PRODUCTS` programs; call it before the first product is computed.

    Args:
        environment: of the process; None: its own.
    """
    environment = os.environ if environment is None else environment
    if not any(name in environment for name in _PRODUCT_SETTINGS):
        environment[_PRODUCT_SETTINGS[0]] = str(PRODUCTS)
