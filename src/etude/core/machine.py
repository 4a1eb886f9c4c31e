"""Hardware detection: the cores, memory, instruction sets, disk and accelerators available.

A number is what this process may use. A container on a 64-core server may be allowed
two cores and 4 GiB; threads and memory plans made from the server's figures are slow or get the
process killed. So cores are the affinity mask limited to the control group's quota, and memory is
the smallest amount left by the system and any enclosing control group.

Sizes are bytes, rates are GFLOP/s (10⁹ floating-point operations per second; a multiply-add is
two). Nothing here imports torch until a GPU or a measured rate is requested.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
import resource
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    import torch

PROC = Path("/proc/self")

# Instruction sets that decide how fast the engine runs, as Linux names them, and the one
# name shown for each. Arm's names of the same two are `bf16` and `asimd`.
INSTRUCTION_SETS = {
    "avx2": "avx2",
    "avx512f": "avx512",
    "avx512_vnni": "avx512_vnni",
    "avx_vnni": "avx_vnni",
    "avx512_bf16": "avx512_bf16",
    "amx_tile": "amx",
    "amx_bf16": "amx_bf16",
    "amx_int8": "amx_int8",
    "asimd": "neon",
    "sve": "sve",
    "sve2": "sve2",
    "i8mm": "i8mm",
    "bf16": "bf16",
}
NATIVE_BFLOAT16 = frozenset({"avx512_bf16", "amx_bf16", "bf16"})


@dataclass(frozen=True)
class Limits:
    """What the control groups around this process allow; None means no limit."""

    cores: float | None
    """Processor time per wall-clock time, summed over cores."""

    memory: int | None
    """Memory limit in bytes, the smallest of all enclosing groups."""

    memory_left: int | None
    """Bytes until the first of those limits is reached, page cache counted as free."""


@dataclass(frozen=True)
class Gpu:
    """An accelerator that torch can use."""

    name: str
    memory: int
    memory_free: int


@dataclass(frozen=True)
class Machine:
    """Resources available to this process. See `this_machine`."""

    processor: str
    architecture: str
    system: str
    instruction_sets: tuple[str, ...]
    logical_cores: int
    """Hardware threads in the affinity mask."""

    physical_cores: int
    """Cores behind them, limited to the control group's quota: the threads to train with."""

    core_quota: float | None
    memory_total: int
    memory_available: int
    memory_limited: bool
    """True where a control group, not the machine, sets `memory_total`."""

    @property
    def native_bfloat16(self) -> bool:
        """Whether the processor multiplies bfloat16 natively, so that it is faster than float32."""
        return not NATIVE_BFLOAT16.isdisjoint(self.instruction_sets)


def this_machine() -> Machine:
    """Detect the machine's resources; takes milliseconds and imports nothing heavy."""
    limits = control_group_limits()
    memory = psutil.virtual_memory()
    total = min(memory.total, limits.memory or memory.total)
    left = memory.available if limits.memory_left is None else limits.memory_left
    logical = _usable_threads()
    cores = _physical_cores(logical)
    if limits.cores is not None:
        # Rounded down: a thread beyond the quota makes all of them wait for the next period.
        cores = max(1, min(cores, int(limits.cores + 0.01)))
    return Machine(
        processor=_processor_name(),
        architecture=platform.machine(),
        system=f"{platform.system()} {platform.release()}",
        instruction_sets=_instruction_sets(),
        logical_cores=len(logical),
        physical_cores=cores,
        core_quota=limits.cores,
        memory_total=total,
        memory_available=min(memory.available, left),
        memory_limited=total < memory.total,
    )


def gpus() -> list[Gpu]:
    """Return the accelerators that torch can use; imports torch."""
    import torch

    found: list[Gpu] = []
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(index)
            found.append(Gpu(torch.cuda.get_device_name(index), total, free))
    elif torch.backends.mps.is_available():
        memory = psutil.virtual_memory()
        found.append(Gpu("Apple GPU (shares the main memory)", memory.total, memory.available))
    return found


def disk_free(path: str | os.PathLike[str]) -> int:
    """Return the free bytes of the disk that holds `path` or its nearest existing parent."""
    folder = Path(path).absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def rss() -> int:
    """Return the resident set size of this process in bytes."""
    return int(psutil.Process().memory_info().rss)


def own_memory() -> int:
    """Return the bytes of this process that only its end would make available to others.

    Files that are mapped (libraries) are left out: the system counts their pages as available.
    """
    held = psutil.Process().memory_info()
    return int(held.rss - getattr(held, "shared", 0))


def peak_rss() -> int:
    """Return the peak resident set size in bytes, since the start or `reset_peak`."""
    try:
        status = (PROC / "status").read_text()
    except OSError:
        status = ""
    if line := re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE):
        return int(line[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def reset_peak() -> bool:
    """Restart the count of `peak_rss`; return False where the system cannot."""
    try:
        # 5 resets the high-water mark to the present size: proc(5), /proc/pid/clear_refs.
        (PROC / "clear_refs").write_text("5")
    except OSError:
        return False
    return True


def release_freed_memory() -> None:
    """Return freed heap pages to the system, where the C library supports it (glibc).

    Imports and loading free much in small pieces, and glibc keeps pages between pieces still in
    use. Returning them before training leaves 20 to 110 MB more for activations.
    """
    if trim := getattr(ctypes.CDLL(None) if os.name == "posix" else None, "malloc_trim", None):
        trim(0)


def measure_gflops(dtype: torch.dtype, seconds: float = 0.3, size: int = 1024) -> float:
    """Measure the rate of a (size, size) matrix product with torch's current number of threads.

    The fastest repetition counts: on a machine that others use as well, it is the one that
    was disturbed least.

    Args:
        dtype: of both factors and the product.
        seconds: how long to repeat; at least one product is computed.
        size: rows and columns of the factors.
    """
    import torch

    left = torch.randn(size, size).to(dtype)
    right = torch.randn(size, size).to(dtype)
    torch.mm(left, right)
    fastest = float("inf")
    end = time.perf_counter() + seconds
    while True:
        start = time.perf_counter()
        torch.mm(left, right)
        now = time.perf_counter()
        fastest = min(fastest, now - start)
        if now >= end:
            return 2 * size**3 / fastest / 1e9


def control_group_limits(proc: Path = PROC) -> Limits:
    """Read the processor and memory limits of the control groups around this process.

    Both cgroup versions are supported. Any level may set a limit, so the walk goes from the
    process's own group up to the root that is mounted here and takes the smallest.
    """
    cores: list[float] = []
    memory: list[int] = []
    left: list[int] = []
    for folder in _control_groups(proc):
        if (quota := _quota(folder)) is not None:
            cores.append(quota)
        for limit_file, used_file in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            limit = _number(folder / limit_file)
            # Version 1 writes "no limit" as the largest number that pages can count.
            if limit is None or limit >= 1 << 60:
                continue
            used = (_number(folder / used_file) or 0) - _page_cache(folder)
            memory.append(limit)
            left.append(max(0, limit - max(0, used)))
    return Limits(
        min(cores, default=None),
        min(memory, default=None),
        min(left, default=None),
    )


def _control_groups(proc: Path) -> list[Path]:
    """Return the folders of this process's control groups, innermost first, with their parents."""
    try:
        mounts = (proc / "mountinfo").read_text().splitlines()
        groups = (proc / "cgroup").read_text().splitlines()
    except OSError:
        return []
    paths = {
        controller: path
        for _, controllers, path in (line.split(":", 2) for line in groups if line.count(":") > 1)
        for controller in controllers.split(",")
    }
    found: list[Path] = []
    for line in mounts:
        fields, _, rest = line.partition(" - ")
        kind, _, source = rest.partition(" ")
        if kind == "cgroup2":
            path = paths.get("")
        elif kind == "cgroup":
            options = source.rpartition(" ")[2].split(",")
            path = next((paths[name] for name in ("memory", "cpu") if name in options), None)
        else:
            continue
        if path is None:
            continue
        # Fields 4 and 5: what part of the hierarchy is mounted, and where. In a container
        # that part is often the process's own group, and the path outside does not exist here.
        part, mount = fields.split(" ")[3:5]
        inside = path.removeprefix(part if part != "/" else "").strip("/")
        root = Path(mount)
        folder = root / inside
        while folder != root:
            found.append(folder)
            folder = folder.parent
        found.append(root)
    return found


def _quota(folder: Path) -> float | None:
    """Return the number of cores that one control group allows."""
    try:
        quota, period = (folder / "cpu.max").read_text().split()
    except (OSError, ValueError):
        quota, period = (
            str(_number(folder / name)) for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        )
    if not (quota.isdigit() and period.isdigit()) or int(period) == 0:
        return None
    return int(quota) / int(period)


def _page_cache(folder: Path) -> int:
    """Return the bytes of file cache that a group releases under memory pressure."""
    try:
        stat = (folder / "memory.stat").read_text()
    except OSError:
        return 0
    line = re.search(r"^(?:total_)?inactive_file (\d+)", stat, re.MULTILINE)
    return int(line[1]) if line else 0


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None


def _usable_threads() -> set[int]:
    if sys.platform == "linux":
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _physical_cores(threads: set[int]) -> int:
    """Count the cores behind the hardware threads: two threads of one core share its units."""
    cores: set[tuple[int | None, int | None]] = set()
    for thread in threads:
        topology = Path(f"/sys/devices/system/cpu/cpu{thread}/topology")
        core = _number(topology / "core_id")
        if core is None:
            counted: int | None = psutil.cpu_count(logical=False)
            return min(len(threads), counted or len(threads))
        cores.add((_number(topology / "physical_package_id"), core))
    return max(1, len(cores))


def _processor_name() -> str:
    if sys.platform == "darwin":
        return _sysctl("machdep.cpu.brand_string") or platform.processor()
    if name := re.search(r"^model name\s*:\s*(.+)$", _cpuinfo(), re.MULTILINE):
        return name[1].strip()
    return platform.processor() or platform.machine()


def _instruction_sets() -> tuple[str, ...]:
    if sys.platform == "darwin":
        named = {"hw.optional.neon": "neon", "hw.optional.arm.FEAT_BF16": "bf16"}
        named["hw.optional.avx2_0"] = "avx2"
        return tuple(name for key, name in named.items() if _sysctl(key) == "1")
    line = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", _cpuinfo(), re.MULTILINE)
    flags = set(line[1].split()) if line else set[str]()
    return tuple(name for flag, name in INSTRUCTION_SETS.items() if flag in flags)


def _cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""


def _sysctl(key: str) -> str:
    answer = subprocess.run(
        ["/usr/sbin/sysctl", "-n", key], capture_output=True, text=True, timeout=5, check=False
    )
    return answer.stdout.strip()
