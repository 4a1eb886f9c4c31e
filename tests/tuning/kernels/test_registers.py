"""The C++ kernels as other processors compile them: with narrower registers than this one has."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from etude.core.machine import this_machine
from etude.tuning.kernels import native

NARROWER = {"avx512": "-mno-avx512f", "avx2": "-mno-avx"}
"""What a processor has, and the compiler's word for one that has less."""


# Two builds, and all tests of the kernels again. Those for this processor: `test_native.py`.
@pytest.mark.slow
@pytest.mark.skipif(not native.status().ready, reason="no C++ kernels here")
@pytest.mark.parametrize("has", NARROWER)
def test_kernels_for_narrower_registers_are_as_right(has, tmp_path):
    if has not in this_machine().instruction_sets:
        pytest.skip(f"this processor has no {has}")
    compiler = f"{os.environ.get('CXX', native.status().reason)} {NARROWER[has]}"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", Path(__file__).with_name("test_native.py")],
        env={**os.environ, "CXX": compiler, "ETUDE_HOME": str(tmp_path), "CI": "true"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
