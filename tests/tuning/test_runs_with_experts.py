"""A whole run whose adapter has the experts' weights: trained, resumed, gone on from, used."""

from __future__ import annotations

import pytest
from architectures import tiny
from test_continuing import losses, run_of, stopped

from etude.tuning.config.recipe import Recipe
from etude.tuning.pipeline import tune
from etude.tuning.predictor import load

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("quant", ["none", "nf4"])
def test_experts_are_trained_resumed_bit_for_bit_and_gone_on_from(
    tiny_recipe, tmp_path, tiny_tokenizer, quant
):
    base = tmp_path / "mixtral"
    tiny("mixtral", vocab_size=512).save_pretrained(base)
    tiny_tokenizer.save_pretrained(base)
    fields = tiny_recipe(
        model={"id": str(base)},
        quant={"kind": quant},
        adapter={
            "target_modules": ["q_proj"],
            "target_parameters": ["experts.gate_up_proj", "experts.down_proj"],
        },
        train={"max_steps": 6},
    )
    run = run_of(fields, tmp_path / "runs")
    assert run.summary["eval_loss"] < run.summary["eval_loss_before"]
    adapted = {module["name"] for module in run.summary["adapted_modules"]}
    assert "model.layers.1.mlp.experts.down_proj" in adapted
    whole = losses(run)
    folder = stopped(run, 3)
    assert losses(tune(Recipe.read_run(folder.recipe), resume=folder)) == whole
    assert len(load(run.folder).predict(["def add(a, b):"])) == 1
    fields["adapter"] = {**fields["adapter"], "start_from": "latest"}
    second = run_of(fields, tmp_path / "runs")
    assert second.summary["eval_loss_before"] == pytest.approx(run.summary["eval_loss"], rel=1e-5)
