"""How PyTorch's threads wait for each other, chosen while they run by how busy the machine is.

The threads meet at the end of every parallel loop, thousands of times a second, and those that
arrive early wait. GNU's OpenMP (libgomp, PyTorch's on Linux) lets them spin for some 300,000 turns,
several milliseconds, before they sleep. On a quiet machine that is right: the next loop follows
within microseconds, and waking a thread costs more than the wait. If another program has the core
of the thread that is late, its turn there is about as long, so the spinning thread keeps the other
core occupied and the late one cannot move to it: two thirds of the speed are lost.

libgomp reads its spin count only once, when it is loaded, but it spins for 100 turns at most while
more threads belong to it than there are processors (`do_spin` in its `config/linux/wait.h`:
`gomp_managed_threads > gomp_available_cpus`). So a thread of ours that opens a team as large as the
machine, and then sleeps with it, makes all others wait shortly; when it ends, they spin again. The
team sleeps in the kernel and costs nothing but its stacks.

The machine is busy where other programs take processors that the threads of this one need.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

OWN_SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""A person's own word on waiting; any of them leaves everything as it is."""

EVERY = 0.25
"""Seconds between two looks at the processors."""

BUSY, QUIET = 0.25, 0.10
"""Processors that our threads need and others take: waiting is short above the first, long again
below the second."""

CALM = 8
"""Looks in a row below `QUIET` before waiting is long again: a wrong choice costs more then."""

_STAT = Path("/proc/stat")


class ShortWaiting:
    """Lets the threads of an OpenMP runtime wait shortly, from `begin()` to `end()`.

    Args:
        runtime: libgomp, as `runtime_of_torch` returns it.
    """

    def __init__(self, runtime: ctypes.CDLL) -> None:
        self._runtime = runtime
        self._release = threading.Event()
        self._keeper: threading.Thread | None = None

    def begin(self) -> None:
        """Open the team; nothing where it is open."""
        if self._keeper is not None:
            return
        self._release.clear()
        opened = threading.Event()
        self._keeper = threading.Thread(
            target=self._keep, args=(opened,), name="etude-waiting", daemon=True
        )
        self._keeper.start()
        opened.wait()

    def end(self) -> None:
        """Close the team; nothing where none is open."""
        if self._keeper is None:
            return
        self._release.set()
        self._keeper.join()
        self._keeper = None

    def _keep(self, opened: threading.Event) -> None:
        """Hold a team of one thread more than there are processors; it ends with this thread."""
        nothing = ctypes.cast(ctypes.CDLL(None).free, ctypes.c_void_p)  # free(NULL) does nothing
        team = self._runtime.omp_get_num_procs() + 1
        self._runtime.GOMP_parallel(nothing, None, ctypes.c_uint(team), ctypes.c_uint(0))
        opened.set()
        self._release.wait()


class Watch:
    """Looks at the processors every `EVERY` seconds and sets how the threads wait.

    Args:
        short: what begins and ends short waiting.
        threads: returns how many threads compute at once.
        taken: returns the processor seconds that other programs have had so far.
        processors: how many processors this process may use.
    """

    def __init__(
        self,
        short: ShortWaiting,
        threads: Callable[[], int],
        taken: Callable[[], float],
        processors: int,
    ) -> None:
        self._short, self._threads, self._taken = short, threads, taken
        self._processors = processors
        self._calm = 0
        self.busy = False

    def look(self, seconds: float, taken: float) -> None:
        """Decide, from `taken` processor seconds of others within the last `seconds`."""
        spare = max(0, self._processors - self._threads())
        missing = taken / seconds - spare
        self._calm = self._calm + 1 if missing < QUIET else 0
        if not self.busy and missing > BUSY:
            self.busy = True
            self._short.begin()
        elif self.busy and self._calm >= CALM:
            self.busy = False
            self._short.end()

    def run(self) -> None:
        """Look until the process ends."""
        before, had = time.monotonic(), self._taken()
        while True:
            time.sleep(EVERY)
            now, has = time.monotonic(), self._taken()
            self.look(now - before, has - had)
            before, had = now, has


def taken_by_others() -> float:
    """Return the processor seconds that others have had so far on the processors we may use.

    Time that the host of a virtual machine gave to its other guests counts as well ("steal").

    Raises:
        OSError: the system has no `/proc/stat`.
    """
    allowed = {f"cpu{number}" for number in os.sched_getaffinity(0)}
    used = 0
    for line in _STAT.read_text("ascii").splitlines():
        name, *ticks = line.split()
        if name in allowed:
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, ticks[:8])
            used += user + nice + system + irq + softirq + steal
    own = os.times()
    return used / os.sysconf("SC_CLK_TCK") - own.user - own.system


def runtime_of_torch() -> ctypes.CDLL | None:
    """Return the libgomp that PyTorch uses; None where it uses another runtime."""
    torch = sys.modules.get("torch")
    if sys.platform != "linux" or torch is None or torch.__file__ is None:
        return None
    beside = Path(torch.__file__).parent
    mapped = {line.rpartition(" ")[2] for line in Path("/proc/self/maps").read_text().splitlines()}
    found = [path for path in mapped if "libgomp" in Path(path).name]
    # Other packages bring copies of their own: PyTorch's lies in its folder or in `torch.libs`.
    own = [path for path in found if Path(path).is_relative_to(beside) or "torch.libs" in path]
    for path in own or found[:1]:
        runtime = ctypes.CDLL(path)
        if hasattr(runtime, "GOMP_parallel"):
            return runtime
    return None


_started = threading.Lock()
_watch: Watch | None = None


def watch() -> Watch | None:
    """Begin to watch, once a process; call it after PyTorch is imported.

    Returns:
        The watch; None where the user chose how to wait, or the runtime or system is another.
    """
    global _watch  # noqa: PLW0603 - one a process, as the runtime is
    with _started:
        if _watch is not None or any(name in os.environ for name in OWN_SETTINGS):
            return _watch
        runtime = runtime_of_torch()
        if runtime is None:
            return None
        import torch

        try:
            taken_by_others()
        except OSError:
            return None
        _watch = Watch(
            ShortWaiting(runtime),
            torch.get_num_threads,
            taken_by_others,
            len(os.sched_getaffinity(0)),
        )
        threading.Thread(target=_watch.run, name="etude-watch", daemon=True).start()
        return _watch
