"""`etude doctor`, called as the command line calls it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from etude.cli import main
from etude.core import machine
from etude.tuning.config.sections.model import ModelSpec
from etude.tuning.placement import Placement


@pytest.fixture
def doctor(monkeypatch, capsys, tmp_path) -> Callable[..., str]:
    """Run `etude doctor`, with nothing pulled yet, and return what it prints."""
    monkeypatch.setenv("ETUDE_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    threads = torch.get_num_threads()

    def call(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["etude", "doctor", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        torch.set_num_threads(threads)
        assert not ended.value.code
        return capsys.readouterr().out

    return call


def pretend(monkeypatch, **changes: Any) -> None:
    """Let this machine be another one, here and where the dtype is chosen."""
    changed = replace(machine.this_machine(), **changes)
    for place in ("etude.core.machine", "etude.tuning.placement"):
        monkeypatch.setattr(f"{place}.this_machine", lambda: changed)


def test_dtype_it_names_is_the_one_that_loading_takes(doctor):
    told = json.loads(doctor("--json", "--no-measure"))
    assert f"torch.{told['dtype']}" == str(Placement.of(ModelSpec()).dtype)


@pytest.mark.parametrize(
    ("sets", "dtype", "why"),
    [
        (("avx2", "avx512", "avx512_bf16"), "bfloat16", "multiplies bfloat16 itself"),
        (("avx2",), "float32", "emulate"),
    ],
)
def test_dtype_is_explained(doctor, monkeypatch, sets, dtype, why):
    if torch.cuda.is_available():
        pytest.skip("with a GPU, the GPU decides")
    pretend(monkeypatch, instruction_sets=sets)
    told = json.loads(doctor("--json", "--no-measure"))
    assert told["dtype"] == dtype
    assert why in told["dtype_reason"]


@pytest.mark.parametrize(
    ("sets", "qlora"),
    [
        pytest.param(("avx2", "avx512", "avx512_bf16"), 3_210_000_000, id="bfloat16"),
        # The embedding, the decoded weights and the activations take twice the bytes.
        pytest.param(("avx2",), 1_710_000_000, id="float32"),
    ],
)
def test_what_fits_follows_the_memory_that_is_left(doctor, monkeypatch, sets, qlora):
    if torch.cuda.is_available():
        pytest.skip("with a GPU, the GPU decides the dtype")
    pretend(monkeypatch, memory_available=6_000_000_000, instruction_sets=sets)
    fits = {fit["method"]: fit for fit in json.loads(doctor("--json", "--no-measure"))["fits"]}
    assert fits["qlora"]["parameters"] == pytest.approx(qlora, rel=0.02)
    assert fits["full"]["parameters"] < 400_000_000
    assert all(fit["memory"] <= 6_000_000_000 for fit in fits.values())
    pretend(monkeypatch, memory_available=300_000_000)
    assert "not even a model of 135 million" in doctor("--no-measure")


def test_measured_rate_and_the_speed_it_allows_are_told(doctor):
    told = json.loads(doctor("--json"))
    assert set(told["gflops"]) == {"float32", "bfloat16"}
    fit = told["fits"][0]
    rate = told["gflops"][told["dtype"]]
    assert fit["tokens_per_s"] == pytest.approx(rate * 1e9 / (4 * fit["parameters"]))


def test_plain_words_name_limits_disk_models_and_versions(doctor, monkeypatch, tmp_path):
    pretend(
        monkeypatch,
        physical_cores=1,
        core_quota=1.5,
        memory_total=4_000_000_000,
        memory_limited=True,
    )
    out = doctor("--no-measure")
    for part in (
        "1 core usable (a control group allows 1.5 cores' worth of time)",
        "the limit of a control group",
        "none pulled yet",
        "smollm2-135m",
        str(tmp_path),
        torch.__version__,
    ):
        assert part in out
