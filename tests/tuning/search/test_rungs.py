"""A run that pauses at a rung goes on as if it had not."""

from __future__ import annotations

import pytest

from etude.tuning.config.recipe import Recipe
from etude.tuning.pipeline import tune
from etude.tuning.runs.folder import RunFolder
from etude.tuning.training.rungs import Rungs, rung_step

pytestmark = pytest.mark.integration

SHARES = (1 / 9, 1 / 3, 1.0)


def _steps(folder):
    kept = ("step", "total_steps", "loss", "lr", "grad_norm")
    records = RunFolder.open(folder).read_metrics()
    return [{key: record[key] for key in kept} for record in records if "loss" in record]


def test_a_paused_run_keeps_its_schedule_and_repeats_the_loss_curve(tiny_recipe, tmp_path):
    recipe = Recipe.parse(tiny_recipe(adapter={"dropout": 0.1}))
    whole = tune(recipe, base=tmp_path / "whole")
    run = tune(recipe, base=tmp_path / "halved", rungs=Rungs(SHARES, SHARES[0]))
    folder = RunFolder.open(run.folder)
    total = folder.read_metrics()[0]["total_steps"]
    for until in SHARES[1:]:
        assert run.state == folder.state == "stopped"
        run = tune(recipe, resume=folder, rungs=Rungs(SHARES, until))
    assert run.state == "finished"
    assert _steps(run.folder) == _steps(whole.folder)
    assert run.summary["eval_loss"] == whole.summary["eval_loss"]
    measured = [r["step"] for r in folder.read_metrics() if "eval_loss" in r]
    assert measured == [rung_step(share, total) for share in SHARES[:-1]]


def test_a_run_that_is_at_its_rung_already_is_not_trained_past_it(tiny_recipe, tmp_path):
    recipe = Recipe.parse(tiny_recipe())
    run = tune(recipe, base=tmp_path, rungs=Rungs(SHARES, SHARES[1]))
    before = _steps(run.folder)
    again = tune(recipe, resume=RunFolder.open(run.folder), rungs=Rungs(SHARES, SHARES[1]))
    assert again.state == "stopped"
    assert _steps(run.folder) == before


def test_a_rung_chooses_no_weights(tiny_recipe, tmp_path):
    # Evaluated at rungs alone, no evaluation is the best that is restored at the end.
    recipe = Recipe.parse(tiny_recipe())
    plain = tune(recipe, base=tmp_path / "a")
    measured = tune(recipe, base=tmp_path / "b", rungs=Rungs(SHARES))
    assert measured.summary["eval_loss"] == plain.summary["eval_loss"]
    assert measured.summary["ended"] == plain.summary["ended"]
