"""The moving average of the trained weights: its formula, and runs that save it."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from torch.optim.swa_utils import get_ema_avg_fn

from etude.core.errors import RecipeError
from etude.tuning.config.recipe import Recipe
from etude.tuning.optim.averaging import WeightAverage
from etude.tuning.pipeline import tune
from etude.tuning.runs.folder import RunFolder


def test_the_average_is_pytorchs_with_the_decay_of_each_step():
    weight = torch.nn.Parameter(torch.zeros(5, dtype=torch.float64))
    average = WeightAverage({"w": weight}, 0.9)
    known = torch.zeros(5, dtype=torch.float64)
    for step in range(1, 200):
        with torch.no_grad():
            weight.copy_(torch.randn(5, generator=torch.Generator().manual_seed(step)).double())
        average.on_optimizer_step(step)
        known = get_ema_avg_fn(min(0.9, (1 + step) / (10 + step)))(known, weight.detach(), step)
    (own,) = average.state().values()
    torch.testing.assert_close(own, known, rtol=1e-12, atol=1e-12)


def test_inside_the_block_the_weights_are_the_average_and_afterwards_their_own_bits():
    weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    average = WeightAverage({"w": weight}, 0.5)
    with torch.no_grad():
        weight.copy_(torch.tensor([0.1, 0.3]))
    with average.applied():
        assert weight.tolist() == [1.0, 2.0]
    assert weight.equal(torch.tensor([0.1, 0.3]))


def weights_of(run):
    return load_file(run.folder / "adapter" / "adapter_model.safetensors")


def losses(run):
    records = RunFolder.open(run.folder).read_metrics()
    return [(r["step"], r.get("loss"), r.get("eval_loss")) for r in records]


@pytest.mark.integration
def test_a_run_saves_and_evaluates_the_average_and_resumes_it_bit_for_bit(tiny_recipe, tmp_path):
    train = {"ema_decay": 0.9, "eval_every": 5, "save_every": 7, "lr_scheduler": "constant"}
    run = tune(Recipe.parse(tiny_recipe(train=train)), base=tmp_path / "runs")
    plain = tune(
        Recipe.parse(tiny_recipe(train={**train, "ema_decay": None})), base=tmp_path / "plain"
    )
    # Training itself is not changed by the average, what is evaluated and saved is.
    assert [loss for _, loss, _ in losses(run) if loss] == [
        loss for _, loss, _ in losses(plain) if loss
    ]
    assert [e for _, _, e in losses(run) if e] != [e for _, _, e in losses(plain) if e]
    saved, whole = weights_of(run), losses(run)
    assert "train.ema_decay 0.9" in run.summary["ended"]
    last = [e for _, _, e in whole if e][-1]
    assert run.summary["eval_loss"] == pytest.approx(
        min(e for _, _, e in whole if e), rel=1e-6
    ) or run.summary["eval_loss"] == pytest.approx(last, rel=1e-6)

    folder = RunFolder.open(run.folder)
    for path in folder.path.rglob("step-*.pt"):
        if int(path.stem.removeprefix("step-")) > 14:
            path.unlink()
    folder.set_state("stopped", "as if killed")
    resumed = tune(Recipe.read_run(run.folder / "recipe.yaml"), resume=RunFolder.open(run.folder))
    assert losses(resumed) == whole
    assert all(torch.equal(value, saved[name]) for name, value in weights_of(resumed).items())


def test_it_is_refused_for_adalora_whose_pruned_ranks_it_would_bring_back():
    with pytest.raises(RecipeError, match="AdaLoRA sets pruned ranks to zero"):
        Recipe.parse({"adapter": {"kind": "adalora"}, "train": {"ema_decay": 0.9}})
