"""What this process may use: real figures of this machine, and control groups as files."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch

from etude.core import machine

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's /proc")


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def process_in(root: Path, groups: str, mounts: str) -> Path:
    """Make the two files of /proc/self that name a process's control groups."""
    write(root / "proc" / "cgroup", groups)
    write(root / "proc" / "mountinfo", mounts)
    return root / "proc"


def test_limits_of_version_two_are_the_least_on_the_way_up(tmp_path: Path):
    mount = tmp_path / "cgroup"
    proc = process_in(
        tmp_path,
        "0::/user/job\n",
        f"31 23 0:28 / {mount} rw,relatime shared:4 - cgroup2 cgroup rw,nsdelegate\n",
    )
    write(mount / "user/job/cpu.max", "max 100000\n")
    write(mount / "user/job/memory.max", "8000000000\n")
    write(mount / "user/job/memory.current", "1000000000\n")
    write(mount / "user/job/memory.stat", "anon 100\ninactive_file 400000000\n")
    write(mount / "user/cpu.max", "150000 100000\n")
    write(mount / "user/memory.max", "5000000000\n")
    write(mount / "user/memory.current", "1500000000\n")
    limits = machine.control_group_limits(proc)
    assert limits.cores == 1.5
    assert limits.memory == 5_000_000_000
    # 5 - 1.5 in the outer group; 8 - (1 - 0.4 of page cache) in the inner one.
    assert limits.memory_left == 3_500_000_000


def test_limits_of_version_one_are_read_where_a_container_mounts_its_own_group(tmp_path: Path):
    memory, cpu = tmp_path / "memory", tmp_path / "cpu"
    proc = process_in(
        tmp_path,
        "5:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n0::/\n",
        f"35 31 0:32 /docker/abc {memory} rw - cgroup cgroup rw,memory\n"
        f"32 31 0:29 /docker/abc {cpu} rw - cgroup cgroup rw,cpu,cpuacct\n",
    )
    write(memory / "memory.limit_in_bytes", "2000000000\n")
    write(memory / "memory.usage_in_bytes", "500000000\n")
    write(cpu / "cpu.cfs_quota_us", "300000\n")
    write(cpu / "cpu.cfs_period_us", "100000\n")
    limits = machine.control_group_limits(proc)
    assert limits == machine.Limits(cores=3.0, memory=2_000_000_000, memory_left=1_500_000_000)


def test_no_limit_is_none_in_both_versions(tmp_path: Path):
    two, one = tmp_path / "two", tmp_path / "one"
    proc = process_in(
        tmp_path,
        "5:memory:/\n3:cpu:/\n0::/\n",
        f"31 23 0:28 / {two} rw - cgroup2 cgroup rw\n"
        f"35 31 0:32 / {one} rw - cgroup cgroup rw,memory\n",
    )
    write(two / "cpu.max", "max 100000\n")
    write(two / "memory.max", "max\n")
    write(one / "memory.limit_in_bytes", "9223372036854771712\n")
    write(one / "cpu.cfs_quota_us", "-1\n")
    assert machine.control_group_limits(proc) == machine.Limits(None, None, None)
    assert machine.control_group_limits(tmp_path / "nothing") == machine.Limits(None, None, None)


def test_quota_cuts_the_cores_and_a_memory_limit_the_memory(monkeypatch):
    limits = machine.Limits(cores=1.9, memory=3_000_000_000, memory_left=1_000_000_000)
    monkeypatch.setattr(machine, "control_group_limits", lambda: limits)
    here = machine.this_machine()
    assert here.physical_cores == 1
    assert here.memory_total == 3_000_000_000
    assert here.memory_available <= 1_000_000_000
    assert here.memory_limited


@linux
def test_affinity_cuts_the_cores():
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        here = machine.this_machine()
        assert (here.physical_cores, here.logical_cores) == (1, 1)
    finally:
        os.sched_setaffinity(0, allowed)


def test_figures_agree_with_those_of_other_libraries():
    here = machine.this_machine()
    assert 1 <= here.physical_cores <= here.logical_cores <= (os.cpu_count() or 1)
    assert here.memory_total <= psutil.virtual_memory().total
    capability = torch.backends.cpu.get_cpu_capability()
    assert ("avx512" in here.instruction_sets) == ("AVX512" in capability)
    known = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    if "avx512_bf16" in known:
        assert here.native_bfloat16 == (known["avx512_bf16"] or known["amx_bf16"])


@linux
def test_peak_follows_the_largest_moment_and_can_be_reset():
    block = torch.ones(50_000_000)
    high = machine.peak_rss()
    assert machine.rss() >= block.nbytes
    del block
    assert machine.rss() < high - 150_000_000
    # The kernel sums its counters now and then: some hundred kB are noise.
    assert machine.peak_rss() > high - 2_000_000
    if not machine.reset_peak():
        pytest.skip("this system does not let a process reset its peak")
    assert machine.peak_rss() < high - 150_000_000


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps and gives back")
def test_freed_pages_between_what_is_kept_are_given_back():
    # In a process of its own: this one's heap holds what other tests have left.
    program = """
from etude.core.machine import release_freed_memory, rss
pieces = [bytes(50_000) for _ in range(2_000)]
full = rss()
kept = pieces[::50]
del pieces
freed = rss()
release_freed_memory()
print(full, freed, rss(), len(kept))
"""
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    full, freed, after, _ = map(int, run.stdout.split())
    assert after < freed - 50_000_000
    assert after < full - 80_000_000


def test_disk_free_of_a_folder_that_is_not_there_yet_is_that_of_its_parent(tmp_path: Path):
    there, later = machine.disk_free(tmp_path), machine.disk_free(tmp_path / "not" / "yet")
    assert later == pytest.approx(there, rel=0.05)


def test_measured_rate_counts_two_operations_a_multiply_add(monkeypatch):
    """With a clock that says a product takes 1 ms, 2 · 100³ operations are 2 GFLOP/s."""
    now = iter(range(10**6))
    monkeypatch.setattr(machine.time, "perf_counter", lambda: next(now) * 1e-3)
    assert machine.measure_gflops(torch.float32, seconds=0.01, size=100) == pytest.approx(2.0)
