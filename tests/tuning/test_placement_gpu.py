"""Whole runs on a GPU, simulated and, where there is one, real: everything lies there."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from simulated_gpu import PEAK, SimulatedTensor, simulated_gpu

from etude.tuning.config.recipe import Recipe
from etude.tuning.config.sections.model import ModelSpec
from etude.tuning.config.sections.quant import QuantSpec
from etude.tuning.evaluation import evaluate_run
from etude.tuning.models.load import load_model
from etude.tuning.pipeline import tune
from etude.tuning.predictor import load
from etude.tuning.runs.folder import RunFolder
from etude.tuning.training.checkpoint import last_checkpoint

pytestmark = pytest.mark.integration

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def records(folder):
    return [r for r in RunFolder.open(folder).read_metrics() if "loss" in r]


def losses(folder):
    return [record["loss"] for record in records(folder)]


@pytest.mark.parametrize("kind", ["none", "nf4", "int4", "int8"])
def test_every_tensor_of_a_model_is_loaded_onto_the_device(tiny_llama, kind):
    spec = ModelSpec(id=str(tiny_llama(layers=2)), dtype="float32")
    quant = QuantSpec(kind=kind)
    with simulated_gpu():
        there = load_model(spec, quant)
    here = load_model(spec.model_copy(update={"device": "cpu"}), quant)
    tensors = dict(there.model.named_parameters()) | dict(there.model.named_buffers())
    others = dict(here.model.named_parameters()) | dict(here.model.named_buffers())
    assert tensors.keys() == others.keys()
    assert any(name.endswith("inv_freq") for name in tensors)
    for name, tensor in tensors.items():
        assert isinstance(tensor, SimulatedTensor), name
        assert torch.equal(tensor.elem, others[name]), name


VARIANTS = {
    "lora": {},
    "qlora": {"quant": {"kind": "nf4"}},
    "int8": {"quant": {"kind": "int8"}},
    "int8 products": {"quant": {"kind": "int8", "compute": "int8"}},
    "padded rows": {"data": {"packing": False}},
    "checkpointing": {"train": {"gradient_checkpointing": True}, "quant": {"kind": "nf4"}},
    "dora": {"adapter": {"kind": "dora"}},
    "vera": {"adapter": {"kind": "vera", "rank": 16}},
    "adalora": {"adapter": {"kind": "adalora"}},
    "ia3": {"adapter": {"kind": "ia3"}},
    "pissa": {"adapter": {"init": "pissa"}},
    "loftq": {"adapter": {"init": "loftq"}, "quant": {"kind": "nf4"}},
    "orthogonal": {"adapter": {"init": "orthogonal"}},
    "full": {"adapter": {"kind": "full"}, "train": {"lr": 1e-3}},
    "adamw8bit": {"train": {"optimizer": "adamw8bit"}},
    "lion": {"train": {"optimizer": "lion", "lr": 1e-3}},
    "adafactor": {"train": {"optimizer": "adafactor"}},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_a_run_on_the_device_has_the_losses_of_the_processor(tiny_recipe, tmp_path, name):
    recipe = tiny_recipe(**VARIANTS[name])
    recipe["train"] = {**recipe["train"], "eval_every": 3, "max_steps": 6}
    with simulated_gpu():
        there = tune(Recipe.parse(recipe), base=tmp_path / "gpu")
    here = tune(Recipe.parse(recipe), base=tmp_path / "cpu")
    # float32 sums in another order: relative 1e-6 a step, growing over six. Where inputs are
    # rounded to 8 bits, one that lies between two codes may take the other.
    bound = 1e-3 if name == "int8 products" else 1e-4
    assert losses(there.folder) == pytest.approx(losses(here.folder), rel=bound)
    assert there.summary["eval_loss"] == pytest.approx(here.summary["eval_loss"], rel=bound)
    assert all(record["peak_gpu_memory"] == PEAK for record in records(there.folder))
    assert there.summary["peak_gpu_memory"] == PEAK
    assert "peak_gpu_memory" not in records(here.folder)[0]
    environment = json.loads((there.folder / "environment.json").read_text("utf-8"))
    assert environment["placement"]["device"] == "cuda:0"
    assert environment["placement"]["gpu"] == "simulated"


def test_a_checkpoint_of_the_device_is_read_and_resumed_anywhere(tiny_recipe, tmp_path):
    recipe = Recipe.parse(tiny_recipe(quant={"kind": "nf4"}, train={"max_steps": 6}))
    with simulated_gpu():
        whole = tune(recipe, base=tmp_path / "gpu")
    (whole.folder / "checkpoints" / "step-000006.pt").unlink()
    elsewhere = shutil.copytree(whole.folder, tmp_path / "elsewhere")
    checkpoint, _ = last_checkpoint(elsewhere / "checkpoints")
    assert checkpoint.counters.step == 3
    state = [v for one in checkpoint.optimizer["state"].values() for v in one.values()]
    assert state
    assert {type(tensor) for tensor in [*checkpoint.weights.values(), *state]} == {torch.Tensor}

    expected = losses(whole.folder)
    with simulated_gpu(), RunFolder.open(whole.folder) as folder:
        tune(recipe, resume=folder)
    assert losses(whole.folder) == expected
    with RunFolder.open(elsewhere) as folder:
        tune(recipe, resume=folder)
    assert losses(elsewhere) == pytest.approx(expected, rel=1e-4)


def test_the_tuned_model_answers_and_is_evaluated_on_the_device(tiny_recipe, tmp_path):
    run = tune(Recipe.parse(tiny_recipe(quant={"kind": "nf4"})), base=tmp_path)
    folder = RunFolder.open(run.folder)
    here = load(folder).reply("def add_sub(add):", max_new_tokens=8)
    measured = evaluate_run(folder, base=True)
    with simulated_gpu():
        tuned = load(folder)
        assert tuned.loaded.model.device.type == "cuda"
        assert tuned.reply("def add_sub(add):", max_new_tokens=8) == here
        again = evaluate_run(folder, base=True)
    for voice in ("tuned", "base"):
        assert again[voice]["loss"] == pytest.approx(measured[voice]["loss"], rel=1e-5)
        assert again[voice]["rouge"] == measured[voice]["rouge"]


def test_preferences_against_reference_values_of_the_device(tiny_recipe, tmp_path):
    rows = tmp_path / "pairs.jsonl"
    words = ("add", "sub", "mul", "div", "read", "write", "open", "close")
    rows.write_text(
        "".join(
            json.dumps({"prompt": f"def {one}():", "chosen": f"Do {one}.", "rejected": "No."})
            + "\n"
            for one in words
        ),
        "utf-8",
    )
    recipe = Recipe.parse(
        tiny_recipe(
            adapter={"kind": "full"},
            objective={"kind": "dpo"},
            data={"train": str(rows)},
            train={"lr": 1e-3, "max_steps": 2},
        )
    )
    with simulated_gpu():
        there = tune(recipe, base=tmp_path / "gpu")
    here = tune(recipe, base=tmp_path / "cpu")
    assert losses(there.folder) == pytest.approx(losses(here.folder), rel=1e-4)


@needs_cuda
@pytest.mark.parametrize("name", VARIANTS)
def test_a_run_on_cuda_has_the_losses_of_the_processor(tiny_recipe, tmp_path, name):
    recipe = tiny_recipe(**VARIANTS[name])
    recipe["train"] = {**recipe["train"], "eval_every": 3, "max_steps": 6}
    found = {}
    for device in ("cuda", "cpu"):
        recipe["model"]["device"] = device
        found[device] = tune(Recipe.parse(recipe), base=tmp_path / device)
    there, here = found["cuda"], found["cpu"]
    # As above, with sums in yet another order, and in Triton's kernels where they can be compiled.
    assert losses(there.folder) == pytest.approx(losses(here.folder), rel=1e-3)
    assert all(record["peak_gpu_memory"] > 0 for record in records(there.folder))


@needs_cuda
def test_paged_state_of_a_run_on_cuda_is_in_host_memory(tiny_recipe, tmp_path):
    train = {"paged": True, "max_steps": 3}
    recipe = Recipe.parse(tiny_recipe(model={"device": "cuda"}, train=train))
    assert tune(recipe, base=tmp_path).summary["optimizer_paged"]
