"""Whole runs on a GPU: all that is computed lies there. On a simulated one, and on CUDA if it is."""

from __future__ import annotations

import json
from contextlib import nullcontext

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
    "checkpointing": {"train": {"checkpointing": True}, "quant": {"kind": "nf4"}},
    "dora": {"adapter": {"kind": "dora"}},
    "vera": {"adapter": {"kind": "vera", "rank": 16}},
    "adalora": {"adapter": {"kind": "adalora"}},
    "pissa": {"adapter": {"start": "pissa"}},
    "loftq": {"adapter": {"start": "loftq"}, "quant": {"kind": "nf4"}},
    "orthogonal": {"adapter": {"start": "orthogonal"}},
    "full": {"adapter": {"kind": "none"}, "train": {"lr": 1e-3}},
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
    # float32 sums in another order: relative 1e-6 a step, growing over six of them.
    assert losses(there.folder) == pytest.approx(losses(here.folder), rel=1e-4)
    assert there.summary["eval_loss"] == pytest.approx(here.summary["eval_loss"], rel=1e-4)
    assert all(record["peak_gpu_memory"] == PEAK for record in records(there.folder))
    assert there.summary["peak_gpu_memory"] == PEAK
    assert "peak_gpu_memory" not in records(here.folder)[0]
    environment = json.loads((there.folder / "environment.json").read_text("utf-8"))
    assert environment["placement"]["device"] == "cuda:0"
    assert environment["placement"]["gpu"] == "simulated"
