"""Device, dtype, autocast and rank: what is decided on machines of every kind."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from etude.core.errors import ModelError, RecipeError, RunError
from etude.core.machine import this_machine
from etude.tuning import placement
from etude.tuning.config.recipe import Recipe
from etude.tuning.config.sections.model import ModelSpec
from etude.tuning.kernels.triton import TritonStatus
from etude.tuning.pipeline import tune
from etude.tuning.placement import Placement, explain_device

BF16, FLOAT = torch.bfloat16, torch.float32
CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
AVX2, AMX = ("avx2",), ("avx2", "avx512_bf16")


@pytest.fixture
def machine(monkeypatch):
    """A factory of machines: instruction sets, GPUs with or without bfloat16, and their kernels."""

    def make(sets=AVX2, *, gpus=0, gpu_bfloat16=True, kernels=True, broken=None):
        monkeypatch.delenv("RANK", raising=False)
        monkeypatch.delenv("WORLD_SIZE", raising=False)
        other = replace(this_machine(), instruction_sets=sets)
        monkeypatch.setattr(placement, "this_machine", lambda: other)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(torch.cuda, "device", lambda _: torch.no_grad())

        def bfloat16(including_emulation=True):
            return gpu_bfloat16 or including_emulation

        monkeypatch.setattr(torch.cuda, "is_bf16_supported", bfloat16)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "a GPU")
        status = TritonStatus(kernels, "Triton 3.9" if kernels else "Triton is not installed")
        monkeypatch.setattr(placement.triton, "status", lambda: status)
        ones = torch.ones

        def on_gpu(*size, device=None, **options):
            if device is not None and torch.device(device).type == "cuda":
                if broken is not None:
                    raise RuntimeError(broken)
                device = None
            return ones(*size, device=device, **options)

        monkeypatch.setattr(torch, "ones", on_gpu)

    return make


@pytest.mark.parametrize(
    ("sets", "gpu", "asked", "device", "dtype", "emulated"),
    [
        # A processor alone.
        (AVX2, None, "auto", CPU, FLOAT, False),
        (AMX, None, "auto", CPU, BF16, False),
        (AVX2, None, "bfloat16", CPU, BF16, True),
        (AMX, None, "bfloat16", CPU, BF16, False),
        (AMX, None, "float32", CPU, FLOAT, False),
        # Beside a GPU the model goes there, and the processor's arithmetic does not count.
        (AVX2, "bfloat16", "auto", GPU, BF16, False),
        (AMX, "bfloat16", "float32", GPU, FLOAT, False),
        (AMX, "older", "auto", GPU, FLOAT, False),
        (AMX, "older", "bfloat16", GPU, BF16, True),
        (AVX2, "older", "auto", GPU, FLOAT, False),
        # A GPU that no kernels can be compiled for does not count either.
        (AVX2, "no kernels", "auto", CPU, FLOAT, False),
        (AVX2, "no kernels", "bfloat16", CPU, BF16, True),
        (AMX, "no kernels", "auto", CPU, BF16, False),
    ],
)
def test_auto_takes_what_the_device_computes_fast(
    machine, sets, gpu, asked, device, dtype, emulated
):
    machine(
        sets, gpus=0 if gpu is None else 1, gpu_bfloat16=gpu != "older", kernels=gpu != "no kernels"
    )
    adapter = Placement.of(ModelSpec(dtype=asked))
    assert adapter == Placement(device, dtype)
    assert adapter.emulated == emulated
    full = Placement.of(ModelSpec(dtype=asked), full=True)
    assert full == Placement(device, FLOAT, BF16 if dtype == BF16 else None)
    assert full.compute_dtype == dtype
    # Weights in float32 do not help where they are computed with in bfloat16.
    assert full.emulated == emulated
    where = "GPU" if device == GPU else "processor"
    assert (f"this {where} emulates bfloat16" in (full.warning or "")) == emulated


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_a_recipe_says_whether_all_weights_are_trained(machine, tiny_recipe, kind):
    machine(AMX)
    recipe = Recipe.parse(tiny_recipe(model={"dtype": "auto"}, adapter={"kind": kind}))
    assert Placement.of(recipe) == Placement.of(recipe.model, full=kind == "full")


def test_a_processor_that_is_asked_for_is_taken_beside_a_gpu(machine):
    machine(AVX2, gpus=1)
    assert Placement.of(ModelSpec(device="cpu")) == Placement(CPU, FLOAT)
    emulating = Placement.of(ModelSpec(device="cpu", dtype="bfloat16"))
    assert emulating.emulated
    assert "processor" in emulating.warning


def test_a_gpu_that_is_asked_for_needs_no_kernels(machine):
    machine(AVX2, gpus=2, kernels=False)
    assert Placement.of(ModelSpec(device="cuda")).device == GPU
    assert Placement.of(ModelSpec(device="cuda:1")).device == torch.device("cuda", 1)
    assert "model.device: cuda" in explain_device(CPU)


@pytest.mark.parametrize(
    ("asked", "gpus", "broken", "message"),
    [
        ("mps", 1, None, "do not support MPS"),
        ("cuda", 0, None, "no CUDA GPU"),
        ("cuda:2", 2, None, "cuda:1"),
        ("cuda", 1, "no kernel image is available\nmore", "no kernel image is available"),
    ],
)
def test_devices_that_cannot_be_had_are_refused_in_a_line(machine, asked, gpus, broken, message):
    machine(gpus=gpus, broken=broken)
    with pytest.raises(ModelError, match=message) as error:
        Placement.of(ModelSpec(device=asked))
    assert str(error.value).startswith(f"model.device: {asked}: ")
    assert "use model.device: cpu" in str(error.value)
    assert "\n" not in str(error.value)


def test_auto_passes_over_a_gpu_that_does_not_work(machine):
    machine(AVX2, gpus=1, broken="no kernel image is available")
    assert Placement.of(ModelSpec()).device == CPU
    assert "no kernel image" in explain_device(CPU)


@pytest.mark.parametrize("wrong", ["gpu", "cuda:", "cuda:-1", "CPU", ""])
def test_unknown_devices_are_refused_with_the_recipe(tiny_recipe, wrong):
    with pytest.raises(RecipeError, match=r"model\.device"):
        Recipe.parse(tiny_recipe(model={"device": wrong}))


def test_autocast_is_that_of_the_device(machine):
    machine(AMX)
    with Placement(CPU, FLOAT, BF16).autocast_context():
        assert torch.is_autocast_enabled("cpu")
        assert torch.ones(2, 2).mm(torch.ones(2, 2)).dtype == BF16
    with Placement(CPU, FLOAT).autocast_context():
        assert not torch.is_autocast_enabled("cpu")
    assert Placement(GPU, FLOAT).autocast_context().device == "cuda"


def test_rank_and_world_are_the_launchers(machine, monkeypatch, tiny_recipe, tmp_path):
    machine()
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    found = Placement.of(ModelSpec())
    assert (found.rank, found.world_size) == (1, 2)
    with pytest.raises(RunError, match="process 1 of 2"):
        tune(Recipe.parse(tiny_recipe()), base=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_rank_and_world_are_those_of_the_group_where_there_is_one(machine, monkeypatch, tmp_path):
    machine()
    monkeypatch.setenv("RANK", "7")
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'group'}", rank=0, world_size=1
    )
    try:
        found = Placement.of(ModelSpec())
    finally:
        torch.distributed.destroy_process_group()
    assert (found.rank, found.world_size) == (0, 1)


def test_a_run_records_where_it_was_computed(tiny_recipe, tmp_path):
    import json

    run = tune(Recipe.parse(tiny_recipe(train={"max_steps": 1})), base=tmp_path)
    recorded = json.loads((run.folder / "environment.json").read_text("utf-8"))["placement"]
    recipe = Recipe.read(run.folder / "recipe.yaml")
    assert recorded == Placement.of(recipe).as_json()
    assert recorded["dtype"] == "float32"
