"""How threads wait: chosen by what other programs take, and by the runtime's own rule."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from etude.core import waiting
from etude.core.waiting import BUSY, CALM, OWN_SETTINGS, QUIET, Watch

linux = pytest.mark.skipif(
    sys.platform != "linux", reason="GNU's runtime is that of PyTorch on Linux"
)

CLEAN = {name: value for name, value in os.environ.items() if name not in OWN_SETTINGS}


class Recorded:
    def __init__(self) -> None:
        self.calls: list[str] = []

    def begin(self) -> None:
        self.calls.append("begin")

    def end(self) -> None:
        self.calls.append("end")


def watching(processors: int = 2, threads: int = 2) -> tuple[Watch, list[str]]:
    short = Recorded()
    return Watch(short, lambda: threads, lambda: 0.0, processors), short.calls


def test_waiting_is_short_while_others_have_a_core_and_long_again_once_it_is_calm():
    watch, calls = watching()
    watch.look(0.25, 0.0)
    assert calls == []
    watch.look(0.25, 0.25)
    assert watch.busy
    assert calls == ["begin"]
    for _ in range(CALM - 1):
        watch.look(0.25, 0.0)
    assert calls == ["begin"]
    watch.look(0.25, 0.0)
    assert calls == ["begin", "end"]
    assert not watch.busy


def test_one_busy_moment_begins_the_calm_anew():
    watch, calls = watching()
    watch.look(1.0, 1.0)
    for _ in range(CALM - 1):
        watch.look(1.0, 0.0)
    watch.look(1.0, (QUIET + BUSY) / 2)
    for _ in range(CALM - 1):
        watch.look(1.0, 0.0)
    assert calls == ["begin"]


def test_processors_that_no_thread_of_ours_needs_may_be_taken():
    watch, calls = watching(processors=8, threads=4)
    watch.look(1.0, 4.0)
    assert calls == []
    watch.look(1.0, 5.0)
    assert calls == ["begin"]


ACCOUNT = """
import os, sys, time
from etude.core.waiting import taken_by_others
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
began, taken, had = time.monotonic(), taken_by_others(), time.process_time()
while time.process_time() - had < 1.0:
    pass
# Ours and theirs share one processor: together they cannot have had more than the time that passed.
print(taken_by_others() - taken + time.process_time() - had, time.monotonic() - began)
"""


@linux
def test_what_this_process_takes_is_not_taken_by_others():
    done = subprocess.run(
        [sys.executable, "-c", ACCOUNT], capture_output=True, text=True, check=True
    )
    had, passed = map(float, done.stdout.split())
    ticks = 4 / os.sysconf("SC_CLK_TCK")
    assert had <= passed + ticks


@linux
def test_what_another_process_takes_is_seen():
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as other:
        try:
            before, spent = waiting.taken_by_others(), psutil.Process(other.pid).cpu_times()
            while (now := psutil.Process(other.pid).cpu_times()).user - spent.user < 0.5:
                assert other.poll() is None
            seen = waiting.taken_by_others() - before
        finally:
            other.kill()
    ticks = 4 / os.sysconf("SC_CLK_TCK")
    assert seen >= now.user - spent.user - ticks


PROGRAM = """
import os, sys, time, torch
from etude.core import waiting
if sys.argv[1] == "own":
    os.environ["OMP_WAIT_POLICY"] = "passive"
    print(waiting.watch())
    sys.exit()
torch.set_num_threads(2)
x = torch.randn(512, 512)
def spun():
    x + 1  # the team is there
    before = time.process_time()
    for _ in range(100):
        x + 1
        time.sleep(0.01)  # the second thread waits all this long; it spins for some 3 ms of it
    return time.process_time() - before
short = waiting.ShortWaiting(waiting.runtime_of_torch())
first = spun()
short.begin(); short.begin()
meanwhile = spun()
short.end(); short.end()
print(first, meanwhile, spun())
"""


def run(what: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, what], env=CLEAN, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@linux
@pytest.mark.integration
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one processor: nobody to wait for")
def test_pytorchs_runtime_waits_shortly_and_then_long_again():
    """Processor time, which spinning costs and sleeping does not; no speed is measured."""
    long, short, again = map(float, run("spin").split())
    assert short < long / 2
    assert short < again / 2


@linux
@pytest.mark.integration
def test_a_persons_own_setting_wins():
    assert run("own") == "None"


@linux
@pytest.mark.integration
def test_the_runtime_is_pytorchs_own_where_other_packages_bring_theirs():
    program = (
        "import sklearn.utils._openmp_helpers, torch\n"
        "from etude.core import waiting\n"
        "print(waiting.runtime_of_torch()._name)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    import torch

    assert Path(torch.__file__).parent in Path(done.stdout.strip()).parents
