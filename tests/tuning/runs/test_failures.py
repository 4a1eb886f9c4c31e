"""Runs that fail or end badly: what they leave, what they say, and what a resumed one adds up."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from etude.core.errors import EtudeError, ModelError, RunError
from etude.core.progress import SilentProgress
from etude.tuning.callbacks import Callback
from etude.tuning.config.recipe import Recipe
from etude.tuning.evaluation import evaluate_run
from etude.tuning.pipeline import tune
from etude.tuning.predictor import load
from etude.tuning.report.outcome import print_outcome
from etude.tuning.runs.folder import RunFolder, find_run, list_runs
from etude.tuning.training.checkpoint import last_checkpoint

pytestmark = pytest.mark.integration


class FailingProgress(SilentProgress):
    """Raises at the stage whose label begins with `at`."""

    def __init__(self, at: str, error: BaseException) -> None:
        self.at, self.error = at, error

    def start(self, label: str, total: int | None, unit: str = "") -> None:
        del total, unit
        if label.startswith(self.at):
            raise self.error


class FailingCallback(Callback):
    """Raises after step `step`."""

    def __init__(self, step: int, error: BaseException) -> None:
        self.step, self.error = step, error

    def on_step_end(self, record) -> None:
        if record.step == self.step:
            raise self.error


@pytest.mark.parametrize(
    "error",
    [
        ModelError("the model is damaged"),
        OSError(errno.ENOSPC, "No space left on device"),
        KeyboardInterrupt(),
        RuntimeError("a bug"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("stage", ["Reading the data", "Tokenising", "Evaluating"])
def test_a_run_that_fails_before_its_first_step_leaves_nothing(tiny_recipe, tmp_path, stage, error):
    base = tmp_path / "runs"
    recipe = Recipe.parse(tiny_recipe(train={"max_steps": 1}))
    before = RunFolder.create("before", base)
    raised = RunError if isinstance(error, OSError) else type(error)
    with pytest.raises(raised) as told:
        tune(recipe, base=base, progress=FailingProgress(stage, error))
    assert [run.name for run in list_runs(base)] == [before.name]
    assert find_run("latest", base).name == before.name
    assert not [path for path in base.iterdir() if path.name not in ("latest", before.name)]
    if isinstance(error, OSError):
        assert "the disk is full; nothing was trained yet" in str(told.value)


def test_the_first_run_of_a_folder_that_fails_leaves_no_latest(tiny_recipe, tmp_path):
    base = tmp_path / "runs"
    recipe = Recipe.parse(tiny_recipe(data={"train": str(tmp_path / "absent.jsonl")}))
    with pytest.raises(EtudeError):
        tune(recipe, base=base)
    assert not base.exists() or list(base.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "failed"),
        (RuntimeError("a bug"), "failed"),
        (KeyboardInterrupt(), "stopped"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_run_that_fails_after_a_step_is_listed_with_the_reason(
    tiny_recipe, tmp_path, etude_command, error, state
):
    base = tmp_path / "runs"
    recipe = Recipe.parse(tiny_recipe(train={"save_every": 1}))
    raised = RunError if isinstance(error, OSError) else type(error)
    with pytest.raises(raised):
        tune(recipe, base=base, callbacks=[FailingCallback(2, error)])
    listed = etude_command("runs", "list", "--runs", base, "--json")
    (fact,) = json.loads(listed.stdout)
    assert fact["state"] == state
    assert fact["method"] == "lora"
    assert fact["model"] == Path(recipe.model.id).name
    assert fact["detail"]
    (line,) = etude_command("runs", "list", "--runs", base).stdout.splitlines()[1:]
    assert line.endswith(fact["detail"])
    folder = list_runs(base)[0]
    assert last_checkpoint(folder.checkpoints)[0].counters.step == 1
    assert tune(recipe, resume=folder).state == "finished"


class Resumed(Callback):
    def __init__(self) -> None:
        self.records = []
        self.began = None

    def on_resume(self, records) -> None:
        self.records = list(records)

    def on_train_begin(self, total_steps: int, step: int) -> None:
        self.began = (step, total_steps)


def test_a_resumed_run_reports_times_and_peak_of_the_whole(tiny_recipe, tmp_path, monkeypatch):
    base = tmp_path / "runs"
    recipe = Recipe.parse(tiny_recipe(train={"save_every": 2}))
    with pytest.raises(KeyboardInterrupt):
        tune(recipe, base=base, callbacks=[FailingCallback(9, KeyboardInterrupt())])
    folder = list_runs(base)[0]
    # The process before took an hour in all, of which half an hour was training, and more memory
    # than this one will.
    checkpoint, _ = last_checkpoint(folder.checkpoints)
    assert checkpoint.counters.step == 8
    assert checkpoint.counters.total_seconds > checkpoint.counters.seconds > 0
    assert checkpoint.counters.peak_rss > 0
    checkpoint.counters.seconds, checkpoint.counters.total_seconds = 1800.0, 3600.0
    checkpoint.counters.peak_rss = 10**13
    monkeypatch.setattr("etude.tuning.resumption.last_checkpoint", lambda _folder: (checkpoint, []))
    view = Resumed()
    summary = tune(recipe, resume=folder, callbacks=[view]).summary
    assert view.began == (8, 20)
    assert [record["step"] for record in view.records] == list(range(1, 9))
    assert 1800 < summary["train_seconds"] < 3600 < summary["total_seconds"]
    assert summary["peak_rss"] == 10**13


def test_a_run_that_ends_far_worse_says_so_and_keeps_the_weights_before_it(
    tiny_recipe, tmp_path, capsys
):
    # A model that has learnt something, and so has something to lose.
    full = tiny_recipe(adapter={"kind": "full"}, train={"lr": 3e-3, "epochs": 8})
    learnt = tune(Recipe.parse(full), base=tmp_path / "learnt")
    fields = tiny_recipe(train={"lr": 10.0})
    fields["model"]["id"] = str(learnt.folder / "model")
    run = tune(Recipe.parse(fields), base=tmp_path / "runs")
    summary = run.summary
    assert summary["eval_loss_ended"] > 1.5 * summary["eval_loss_before"]
    assert summary["eval_loss"] == pytest.approx(summary["eval_loss_before"], rel=1e-6)
    assert "train.lr (10)" in summary["verdict"]
    print_outcome(run.folder, show=0)
    said = " ".join(capsys.readouterr().out.split())
    assert "Training ended far worse than it began" in said
    assert "far worse than it began" in (run.folder / "report.html").read_text("utf-8")
    # The saved adapter is the one before training, as whoever loads it finds.
    again = evaluate_run(RunFolder.open(run.folder))
    assert again["tuned"]["loss"] == pytest.approx(summary["eval_loss_before"], rel=1e-6)
    assert not (run.folder / "before.pt").exists()


def test_a_run_whose_evaluations_found_a_better_step_keeps_that(tiny_recipe, tmp_path):
    run = tune(
        Recipe.parse(
            tiny_recipe(
                train={
                    "lr": 1.0,
                    "lr_scheduler": "constant",
                    "warmup_ratio": 0.99,
                    "epochs": 4,
                    "eval_every": 1,
                }
            )
        ),
        base=tmp_path / "runs",
    )
    records = RunFolder.open(run.folder).read_metrics()
    evaluations = {r["step"]: r["eval_loss"] for r in records if "eval_loss" in r}
    best = min(evaluations, key=evaluations.__getitem__)
    assert best < max(evaluations)
    assert run.summary["eval_loss"] == pytest.approx(evaluations[best], rel=1e-6)
    assert "verdict" not in run.summary


def test_a_run_that_learns_has_no_verdict(tiny_recipe, tmp_path):
    run = tune(Recipe.parse(tiny_recipe()), base=tmp_path / "runs")
    assert "verdict" not in run.summary


def test_a_run_without_an_adapter_is_named_by_its_path(tiny_recipe, tmp_path):
    folder = RunFolder.create("tiny", tmp_path / "runs")
    folder.write_text("recipe.yaml", Recipe.parse(tiny_recipe()).to_yaml())
    with pytest.raises(RunError) as told:
        load(folder)
    assert str(told.value).endswith(f"etude tune --resume {folder.path}")
