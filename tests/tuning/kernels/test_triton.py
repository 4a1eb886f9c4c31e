"""Triton's kernels in its interpreter, and compiled for GPUs that are not here.

Both in processes of their own: the interpreter is chosen before Triton is imported, for all of it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib import util
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from etude.tuning.kernels import fused, triton

pytestmark = pytest.mark.integration

HERE = Path(__file__).parent

needs_triton = pytest.mark.skipif(
    util.find_spec("triton") is None, reason="there is no Triton for this platform"
)


def test_ci_has_triton():
    """All tests below would pass by skipping."""
    if os.environ.get("CI") and sys.platform == "linux":
        assert util.find_spec("triton") is not None


def run(*command: str, **surroundings: str) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        env={**os.environ, **surroundings},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    return done.stdout


def interpreted(chosen: str) -> int:
    """Run the tests of the interpreter that `chosen` selects; return how many passed."""
    helpers = os.pathsep.join([str(HERE.parent / "fusion"), os.environ.get("PYTHONPATH", "")])
    profile = f"--hypothesis-profile={settings.get_current_profile_name()}"
    said = run(
        "-m", "pytest", "-p", "no:cacheprovider", profile, "-m", chosen,
        str(HERE / "interpreted_triton.py"),
        ETUDE_TRITON="interpret", TRITON_INTERPRET="1", PYTHONPATH=helpers,
    )  # fmt: skip
    print(said)
    assert "skipped" not in said
    passed = re.search(r"(\d+) passed", said)
    assert passed
    return int(passed[1])


@needs_triton
@pytest.mark.timeout(1800)  # every kernel, in an interpreter: minutes on a slow processor
def test_the_kernels_in_the_interpreter():
    assert interpreted("not slow") > 80


@needs_triton
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_more_models_through_the_kernels_in_the_interpreter():
    assert interpreted("slow") == 4


@needs_triton
def test_every_kernel_compiles_for_the_gpus_that_it_is_made_for(tmp_path):
    said = run(str(HERE / "compile_triton.py"), TRITON_CACHE_DIR=str(tmp_path))
    made = {tuple(line.split()[:4]) for line in said.splitlines()}
    names = {
        "_decode", "_decode_scales", "_product", "_gradient", "_down", "_up", "_across",
        "_rms_norm", "_rms_norm_backward", "_rotate", "_swiglu", "_swiglu_backward",
        "_cross_entropy", "_add_norm", "_layer_norm", "_add_norm_backward", "_gelu",
        "_gelu_backward",
    }  # fmt: skip
    for architecture in ("80", "90"):
        assert {name for name, where, *_ in made if where == architecture} == names
    # Bits of the reference: a product and a sum are two roundings, not one.
    assert {fma for name, _, fma, _ in made if name.startswith("_decode")} == {"-"}
    assert "fma" in {fma for name, _, fma, _ in made if name == "_rms_norm"}


def test_the_processor_is_left_to_its_own_kernels():
    assert not triton.interpreting()
    assert not triton.takes(torch.ones(1))
    assert not triton.takes(torch.ones(1, device="meta"))
    assert torch.float16 not in fused.dtypes(torch.device("cpu"))
    assert fused.obstacle(torch.device("cuda")) is None
    assert "mps" in fused.obstacle(torch.device("mps"))


@pytest.mark.parametrize(
    ("surroundings", "reason"),
    [
        ({"ETUDE_TRITON": "0"}, "ETUDE_TRITON=0"),
        ({"CUDA_VISIBLE_DEVICES": ""}, "no GPU"),
        ({"ETUDE_TRITON": "interpret", "TRITON_INTERPRET": ""}, "TRITON_INTERPRET=1"),
    ],
)
def test_it_says_why_the_kernels_are_not_there(surroundings, reason):
    code = (
        "from etude.tuning.kernels import triton, fused; import torch, sys;"
        "print(triton.status().ready, triton.status().reason);"
        "from etude.tuning.runs.environment import environment;"
        "print(environment()['gpu_kernels']);"
        "print(fused.how(torch.device('cuda'))); print('triton' in sys.modules)"
    )
    if reason != "ETUDE_TRITON=0" and util.find_spec("triton") is None:
        reason = "Triton"
    said = run("-c", code, **surroundings).splitlines()
    assert said[0].startswith("False")
    assert all(reason in line for line in said[:3])
    assert said[2].startswith("plain PyTorch")
    assert said[3] == "False", "nothing imports Triton that does not use it"
