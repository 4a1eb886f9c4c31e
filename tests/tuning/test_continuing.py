"""Runs that go on: from a saved adapter, for longer than planned, and never on another base."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from etude.app.tune import plan_resumption
from etude.core.errors import AdapterError, RecipeError, RunError
from etude.tuning.config.recipe import Recipe
from etude.tuning.optim.schedules import learning_rate
from etude.tuning.pipeline import tune
from etude.tuning.runs.folder import RunFolder

pytestmark = pytest.mark.integration


def run_of(fields, base, **options):
    return tune(Recipe.parse(fields), base=base, **options)


def records(run):
    return [r for r in RunFolder.open(run.folder).read_metrics() if "loss" in r]


def losses(run):
    return [record["loss"] for record in records(run)]


def stopped(run, step):
    """Make a finished run look as if it had been killed after `step`, its checkpoint."""
    folder = RunFolder.open(run.folder)
    for path in folder.checkpoints.glob("step-*.pt"):
        if int(path.stem.removeprefix("step-")) > step:
            path.unlink()
    assert list(folder.checkpoints.glob("step-*.pt"))
    folder.set_state("stopped", "as if killed")
    return RunFolder.open(run.folder)


# The base


def test_a_run_is_not_resumed_on_other_weights(tiny_recipe, tmp_path):
    fields = tiny_recipe()
    base = tmp_path / "base"
    shutil.copytree(fields["model"]["id"], base)
    fields["model"] = {**fields["model"], "id": str(base)}
    run = run_of(fields, tmp_path / "runs")
    whole, recorded = losses(run), json.loads((run.folder / "base.json").read_text())
    assert len(recorded["fingerprint"]) == 64
    folder = stopped(run, 18)
    weights = base / "model.safetensors"
    before = weights.read_bytes()
    tensors = load_file(weights)
    name = "model.layers.0.mlp.up_proj.weight"
    tensors[name] = tensors[name] * 1.001
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(RunError, match=r"base's weights .* differs from what this run began with"):
        tune(Recipe.read_run(folder.recipe), resume=folder)
    assert RunFolder.open(run.folder).state == "failed"
    weights.write_bytes(before)
    assert losses(tune(Recipe.read_run(folder.recipe), resume=RunFolder.open(run.folder))) == whole


def test_a_run_that_recorded_no_base_is_resumed_and_records_none(tiny_recipe, tmp_path):
    run = run_of(tiny_recipe(), tmp_path / "runs")
    whole = losses(run)
    folder = stopped(run, 18)
    (run.folder / "base.json").unlink()
    assert losses(tune(Recipe.read_run(folder.recipe), resume=folder)) == whole
    assert not (run.folder / "base.json").exists()


# From an adapter


@pytest.mark.parametrize(
    ("adapter", "quant"),
    [
        ({"kind": "lora", "modules_to_save": ["norm"]}, "none"),
        ({"kind": "dora", "rslora": True}, "nf4"),
        ({"kind": "vera", "rank": 8}, "none"),
        ({"kind": "ia3", "target_modules": ["k_proj", "down_proj"]}, "none"),
        ({"init": "pissa"}, "none"),
        ({"init": "loftq", "loftq_iterations": 2}, "nf4"),
        ({"layers": [1]}, "none"),
    ],
)
def test_training_goes_on_from_where_the_adapter_is(tiny_recipe, tmp_path, adapter, quant):
    fields = tiny_recipe(adapter=adapter, quant={"kind": quant}, train={"max_steps": 6})
    first = run_of(fields, tmp_path / "runs")
    fields["adapter"] = {**fields["adapter"], "start_from": "latest"}
    second = run_of(fields, tmp_path / "runs")
    # The same weights on the same samples; what an initialisation took is rounded once more.
    assert second.summary["eval_loss_before"] == pytest.approx(first.summary["eval_loss"], rel=1e-5)
    assert second.summary["eval_loss"] != second.summary["eval_loss_before"]
    kept = Recipe.read_run(second.folder / "recipe.yaml").adapter.start_from
    assert kept == str(first.folder / "adapter")
    # Resumed, it begins where it began.
    whole = losses(second)
    folder = stopped(second, 3)
    assert losses(tune(Recipe.read_run(folder.recipe), resume=folder)) == whole
    folder = stopped(second, 3)
    weights = first.folder / "adapter" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + bytes(4))
    with pytest.raises(RunError, match="the adapter it starts from"):
        tune(Recipe.read_run(folder.recipe), resume=folder)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"rank": 8, "alpha": 16}, r"has rank 4 in .*, the recipe 8"),
        ({"alpha": 4}, r"has alpha .*= 2 in .*, the recipe 1"),
        ({"kind": "dora"}, "has kind lora, the recipe dora"),
        ({"target_modules": ["q_proj"]}, "the recipe lacks .*k_proj"),
        ({"layers": [0]}, r"the recipe lacks model\.layers\.1"),
        ({"init": "pissa"}, "has init default, the recipe pissa"),
        ({"modules_to_save": ["norm"]}, "has modules_to_save none, the recipe model.norm"),
        ({"kind": "adalora"}, "AdaLoRA"),
    ],
)
def test_an_adapter_of_another_recipe_is_refused(tiny_recipe_in, finished, changed, message):
    first, fields, base = finished
    fields = {**fields, "adapter": {**fields["adapter"], **changed, "start_from": str(first)}}
    with pytest.raises(AdapterError, match=message):
        run_of(fields, base)


@pytest.fixture(scope="module")
def finished(tiny_recipe_in, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    fields = tiny_recipe_in(folder)(train={"max_steps": 2})
    return run_of(fields, folder / "runs").folder, fields, folder / "runs"


def test_an_adapter_that_is_not_there_is_refused_before_a_run_is_made(tiny_recipe, tmp_path):
    fields = tiny_recipe(adapter={"start_from": "yesterday"})
    with pytest.raises(RunError, match="yesterday"):
        run_of(fields, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


# For longer


def test_a_finished_run_is_extended(tiny_recipe, tmp_path):
    run = run_of(tiny_recipe(), tmp_path / "runs")
    before = records(run)
    with pytest.raises(RecipeError, match=r"finished.*--set train.epochs=4"):
        plan_resumption("latest", tmp_path / "runs")
    plan = plan_resumption("latest", tmp_path / "runs", ["train.epochs=4"])
    longer = tune(plan.recipe, resume=plan.resume, extend=plan.extend)
    assert longer.folder == run.folder
    after = records(longer)
    steps = len(before)
    assert len(after) == 2 * steps
    assert [r["loss"] for r in after[:steps]] == [r["loss"] for r in before]
    spec = plan.recipe.train
    # The schedule is that of the whole length, from the step on at which the run goes on.
    assert [r["lr"] for r in after[steps:]] == [
        learning_rate(spec, step, 2 * steps) for step in range(steps, 2 * steps)
    ]
    assert after[steps]["lr"] > before[-1]["lr"]
    assert longer.summary["steps"] == 2 * steps
    assert longer.summary["eval_loss"] != run.summary["eval_loss"]
    assert longer.summary["eval_loss_before"] == run.summary["eval_loss_before"]
    assert Recipe.read_run(longer.folder / "recipe.yaml").train.epochs == 4


def test_with_a_constant_rate_an_extended_run_is_the_longer_run(tiny_recipe, tmp_path):
    """Data, dropout and the optimiser's state go on: nothing but the schedule is planned anew."""
    sections = {
        "adapter": {"dropout": 0.2},
        "train": {"lr_scheduler": "constant", "warmup_ratio": 0.0, "epochs": 1},
    }
    run_of(tiny_recipe(**sections), tmp_path / "runs")
    plan = plan_resumption("latest", tmp_path / "runs", ["train.epochs=3"])
    extended = tune(plan.recipe, resume=plan.resume, extend=True)
    sections["train"]["epochs"] = 3
    whole = run_of(tiny_recipe(**sections), tmp_path / "whole")
    assert losses(extended) == losses(whole)
    ours, theirs = (
        load_file(run.folder / "adapter" / "adapter_model.safetensors") for run in (extended, whole)
    )
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_what_cannot_be_extended_is_refused(tiny_recipe, tmp_path):
    run = run_of(tiny_recipe(train={"max_steps": 6}), tmp_path / "runs")
    with pytest.raises(RecipeError, match=r"may be changed; not train\.lr=1"):
        plan_resumption("latest", tmp_path / "runs", ["train.lr=1"])
    plan = plan_resumption("latest", tmp_path / "runs", ["train.max_steps=5"])
    with pytest.raises(RunError, match="has done 6 steps, and the recipe plans 5 now"):
        tune(plan.recipe, resume=plan.resume, extend=True)
    shutil.rmtree(run.folder / "checkpoints")
    plan = plan_resumption("latest", tmp_path / "runs", ["train.max_steps=9"])
    with pytest.raises(RunError, match="no checkpoint left to go on from"):
        tune(plan.recipe, resume=plan.resume, extend=True)
