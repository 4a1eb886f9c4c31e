"""The GPU's table: without a GPU it says so, and the script itself is exercised on a tiny model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from etude.tuning.config.sections.quant import QuantSpec
from etude.tuning.placement import Placement
from etude.tuning.quant.block import BlockLinear

pytestmark = pytest.mark.integration

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu.py"
NO_GPU = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}


def run(*options: str) -> str:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *options],
        env=NO_GPU, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    return done.stdout


def test_without_a_gpu_every_cell_says_that_it_was_not_measured(tmp_path):
    said = run("--json", str(tmp_path / "gpu.json"))
    content = json.loads((tmp_path / "gpu.json").read_text("utf-8"))
    names = [row["name"] for row in content["rows"]]
    lines = {name: line for line in said.splitlines() for name in names if line.startswith(name)}
    assert len(lines) == len(set(names)) == 20
    assert all("not measured" in line for line in lines.values())
    assert all(row["value"] is None for row in content["rows"])
    assert not any(word in said for word in (" met", "missed"))
    goals = {row["name"]: (row["goal"], row["more"]) for row in content["rows"] if row["goal"]}
    assert goals == {
        "NF4 decode, of the copy bandwidth": (0.80, True),
        "LoRA, of the matrix rate": (0.45, True),
        "QLoRA, of LoRA's tokens/s": (0.85, True),
        "LoRA, tokens/s, of PEFT's": (2.0, True),
        "LoRA, peak memory, of PEFT's": (0.60, False),
        "QLoRA, tokens/s, of PEFT's": (2.0, True),
        "QLoRA, peak memory, of PEFT's": (0.60, False),
        "70B QLoRA, layers computed again, GB": (80, False),
    }


@pytest.mark.skipif(sys.platform != "linux", reason="bitsandbytes is installed on Linux alone")
def test_a_tiny_model_goes_through_every_part(tmp_path):
    said = run("--tiny", "--repeats", "1", "--json", str(tmp_path / "gpu.json"))
    content = json.loads((tmp_path / "gpu.json").read_text("utf-8"))
    assert content["reasons"] == {}
    assert all(row["value"] > 0 for row in content["rows"])
    assert "not measured" not in said
    assert "not how fast anything is" in said
    assert not any(word in said for word in (" met", "missed")), "a tiny model judges nothing"
    value = {row["key"]: row["value"] for row in content["rows"]}
    assert value["qlora_ratio"] == value["qlora_tokens_s"] / value["lora_tokens_s"]
    assert value["decode_share"] == value["decode_gb_s"] / value["copy_gb_s"]
    assert value["lora_memory_of_peft"] == value["lora_gb"] / value["peft_lora_gb"]


def test_its_help_has_an_example():
    assert "example: python benchmarks/gpu.py" in run("--help")


def test_random_codes_are_weights_of_a_models_size():
    """What is timed must not be numbers that no model has: NaN, or all alike."""
    import importlib.util

    sys.path.insert(0, str(SCRIPT.parent))
    try:
        spec = importlib.util.spec_from_file_location("gpu_benchmark", SCRIPT)
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        sys.modules["gpu_benchmark"] = module  # dataclasses look their module up
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(SCRIPT.parent))
    options = module.arguments().parse_args(["--tiny"])
    placement = Placement(torch.device("cpu"), torch.bfloat16)
    layer = module.Bench(options, placement).coded(96, 64)
    assert isinstance(layer, BlockLinear)
    assert layer.spec == QuantSpec(kind="nf4", double=True)
    weight = layer.dequantize(torch.float32)
    assert 0.005 < weight.std() < 0.05
    assert module.LLAMA_8B.products == [
        (4096, 4096), (1024, 4096), (1024, 4096), (4096, 4096),
        (14336, 4096), (14336, 4096), (4096, 14336),
    ]  # fmt: skip
