"""Schedules in runs: what is recorded, what is refused before training, and exact resuming."""

from __future__ import annotations

import pytest

from etude.core.errors import RecipeError
from etude.tuning.config.recipe import Recipe
from etude.tuning.config.sections.train import ONLY_WITH
from etude.tuning.optim.schedules import SCHEDULES, learning_rate
from etude.tuning.pipeline import tune
from etude.tuning.runs.folder import RunFolder

pytestmark = pytest.mark.integration


def records(run):
    return RunFolder.open(run.folder).read_metrics()


def rates(run):
    return [record["lr"] for record in records(run) if "lr" in record]


def killed(run, step):
    """Make a finished run look as if it had been killed after the checkpoint of `step`."""
    folder = RunFolder.open(run.folder)
    for path in folder.path.rglob("step-*.pt"):
        if int(path.stem.removeprefix("step-")) > step:
            path.unlink()
    assert list(folder.checkpoints.glob("step-*.pt"))
    folder.set_state("stopped", "as if killed")
    return RunFolder.open(run.folder)


@pytest.mark.parametrize("name", [name for name in SCHEDULES if name != "reduce_lr_on_plateau"])
def test_a_resumed_run_has_every_rate_of_the_whole_one(tiny_recipe, tmp_path, name):
    fields = tiny_recipe(train={"lr_scheduler": name, "save_every": 7})
    run = tune(Recipe.parse(fields), base=tmp_path / "runs")
    whole, total = rates(run), run.summary["steps"]
    spec = Recipe.parse(fields).train
    assert whole == [learning_rate(spec, step, total) for step in range(total)]
    losses = [record["loss"] for record in records(run)]
    resumed = tune(Recipe.read_run(run.folder / "recipe.yaml"), resume=killed(run, 14))
    assert rates(resumed) == whole
    assert [record["loss"] for record in records(resumed)] == losses


def test_a_plateau_lowers_the_rate_and_its_memory_is_in_the_checkpoint(tiny_recipe, tmp_path):
    fields = tiny_recipe(
        train={
            "lr_scheduler": "reduce_lr_on_plateau",
            "plateau_factor": 0.3,
            "plateau_patience": 1,
            # So large that no evaluation after the first counts as better.
            "plateau_threshold": 0.9,
            "warmup_steps": 2,
            "min_lr_ratio": 0.05,
            "eval_every": 2,
            "save_every": 13,
            "epochs": 2,
        }
    )
    run = tune(Recipe.parse(fields), base=tmp_path / "runs")
    whole, everything = rates(run), records(run)
    peak = fields["train"]["lr"]
    assert whole[1:6] == [peak] * 5
    assert whole[6:10] == [pytest.approx(0.3 * peak)] * 4
    assert whole[10:14] == [pytest.approx(0.09 * peak)] * 4
    assert whole[14:18] == [pytest.approx(0.05 * peak)] * 4
    # Killed between an evaluation that was not better and the one that lowers the rate.
    resumed = tune(Recipe.read_run(run.folder / "recipe.yaml"), resume=killed(run, 13))
    assert rates(resumed) == whole
    again = [(r["step"], r.get("loss"), r.get("eval_loss")) for r in records(resumed)]
    assert again == [(r["step"], r.get("loss"), r.get("eval_loss")) for r in everything]


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"warmup_steps": 500}, "more than the 20 steps of the run"),
        (
            {"lr_scheduler": "warmup_stable_decay", "warmup_steps": 12, "lr_decay_steps": 12},
            "12 steps of warm-up and 12 of decay are more than the 20 steps",
        ),
    ],
)
def test_a_schedule_longer_than_the_run_is_refused_before_training(
    tiny_recipe, tmp_path, train, message
):
    with pytest.raises(RecipeError, match=message):
        tune(Recipe.parse(tiny_recipe(train=train)), base=tmp_path / "runs")
    assert not list((tmp_path / "runs").glob("tiny-*"))


def test_keys_of_one_schedule_name_schedules_and_keys_that_there_are():
    assert set(ONLY_WITH.values()) <= {*SCHEDULES}
    assert set(ONLY_WITH) <= set(Recipe().train.model_dump())
