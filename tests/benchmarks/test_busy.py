"""benchmarks/busy.py: its busy program, and what it makes of a worker's lines."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import busy


def test_the_busy_program_has_one_core_and_begins_halted():
    with busy.busy_program() as program:
        one = psutil.Process(program.pid)
        assert one.cpu_affinity() == [min(os.sched_getaffinity(0))]
        # A stopping signal is delivered before the next instruction of the process.
        os.waitid(os.P_PID, program.pid, os.WSTOPPED | os.WNOWAIT)
        assert one.status() == psutil.STATUS_STOPPED
        program.send_signal(signal.SIGCONT)
        os.waitid(os.P_PID, program.pid, os.WCONTINUED | os.WNOWAIT)
        assert one.status() != psutil.STATUS_STOPPED
    assert program.returncode == -signal.SIGKILL


def test_pieces_are_whole_lines_of_work_and_nothing_else(tmp_path):
    output = tmp_path / "out"
    output.write_text(
        'a library says\n{"at": 1.5, "amount": 4}\n{"at": 2.0, "amount": 3}\n{"at": 2'
    )
    with subprocess.Popen(["true"]) as process:
        worker = busy.Worker(process, output)
        assert worker.pieces() == [(1.5, 4), (2.0, 3)]


def test_a_worker_that_ended_is_named_with_its_log(tmp_path):
    output = tmp_path / "out"
    output.touch()
    output.with_suffix(".err").write_text("no weights here")
    process = subprocess.Popen(["true"])
    process.wait()
    with pytest.raises(SystemExit, match="no weights here"):
        busy.Worker(process, output).next_piece()


def test_what_was_kept_is_the_ratio_of_medians():
    found = busy.summed({"quiet": [10.0, 12.0, 50.0], "busy": [6.0, 1.0, 9.0]})
    assert found == {"quiet": 12.0, "busy": 6.0, "kept": 0.5}
