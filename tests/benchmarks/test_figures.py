"""The figures that benchmarks print rest on counts; the counts are checked here."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

from etude.tuning.adapters.inject import add_adapter
from etude.tuning.config.sections.adapter import AdapterSpec
from etude.tuning.fusion.forward_probe import logits_are_plain
from etude.tuning.fusion.packed_attention import packed_rows
from etude.tuning.objectives.cross_entropy import completion_loss

pytestmark = pytest.mark.integration

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def script(name: str):
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_operations_are_those_that_pytorch_counts():
    config = LlamaConfig(
        vocab_size=70,
        hidden_size=48,
        intermediate_size=112,
        num_hidden_layers=3,
        num_attention_heads=3,
        num_key_value_heads=1,
        head_dim=16,
    )
    model = LlamaForCausalLM(config)
    add_adapter(model, AdapterSpec(rank=5, target_modules="all-linear"), seed=0)
    tokens, trained = 64, 32  # 32: what the loss fills chunks up to
    targets = torch.full((1, tokens), -100)
    targets[0, :trained] = 3
    logits_are_plain(model)  # asked of a model once, by a forward pass of its own
    # PyTorch's counter knows addmm alone, not the one that writes in place.
    in_place = {torch.ops.aten.addmm_: lambda _, a, b, **__: 2 * a[0] * a[1] * b[1]}
    with packed_rows(model), FlopCounterMode(display=False, custom_mapping=in_place) as counter:
        ids = torch.zeros(1, tokens, dtype=torch.long)
        completion_loss(model, ids, targets, segment_lengths=[tokens]).backward()
    counted = counter.get_flop_counts()["Global"]
    # PyTorch counts attention over the whole square; half of it is what causality leaves.
    attention = sum(n for op, n in counted.items() if "attention" in str(op))
    flops = script("flops").model_flops
    products = flops(config, 5, tokens, trained, 0)
    assert sum(counted.values()) - attention == products
    pairs = tokens * (tokens + 1) // 2
    with_attention = flops(config, 5, tokens, trained, pairs)
    # 12 operations for each pair and channel: two products forward, four backward.
    assert with_attention - products == 12 * pairs * 3 * 48


@pytest.mark.parametrize(
    ("value", "more", "worse"),
    [
        (4.0, True, False),
        (3.61, True, False),
        (3.59, True, True),
        (9.0, True, False),
        (4.4, False, False),
        (4.5, False, True),
        (1.0, False, False),
    ],
)
def test_a_loss_of_more_than_a_tenth_of_a_ratio_fails(tmp_path, value, more, worse):
    kept, found = tmp_path / "kept.json", tmp_path / "found.json"
    row = {"name": "speed", "goal": 4.0, "more": more}
    kept.write_text(json.dumps({"rows": [{**row, "value": 4.0}]}), "utf-8")
    found.write_text(json.dumps({"rows": [{**row, "value": value}]}), "utf-8")
    command = [sys.executable, str(BENCHMARKS / "regression.py")]
    files = ["--found", str(found), "--kept", str(kept)]
    done = subprocess.run([*command, *files], capture_output=True, text=True, check=False)
    assert done.returncode == int(worse), done.stdout + done.stderr
    assert ("was 4.000" in done.stdout) == worse


def test_a_figure_that_is_missing_fails(tmp_path):
    regression = script("regression")
    row = {"name": "speed", "value": 4.0, "goal": 4.0, "more": True}
    assert regression.losses([], [row]) == ["speed: not measured"]
    assert regression.losses([row], [row]) == []


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        (None, 2, "run `make bench` first"),
        ("", 2, "is not what cpu.py writes"),
        ("[]", 2, "is not what cpu.py writes"),
        ('{"dtype": "float8", "rows": []}', 0, "no ratios of float8 were kept"),
    ],
)
def test_regression_says_in_one_line_what_it_cannot_compare(tmp_path, text, code, said):
    file = tmp_path / "cpu.json"
    if text is not None:
        file.write_text(text)
    command = [sys.executable, str(BENCHMARKS / "regression.py"), "--found", str(file)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == code
    assert said in run.stdout + run.stderr
    assert "Traceback" not in run.stderr
