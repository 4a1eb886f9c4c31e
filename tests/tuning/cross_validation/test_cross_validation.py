"""Whole cross-validations of a tiny model: the result, a kill, a stop, what is refused."""

from __future__ import annotations

import json
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from etude.app import folds as service
from etude.core.errors import RecipeError, RunError
from etude.tuning.config.recipe import Recipe
from etude.tuning.pipeline import tune
from etude.tuning.runs.folder import RunFolder, list_runs

pytestmark = pytest.mark.integration


class Silent:
    def on_folds(self, folds):
        pass

    def on_event(self, repeat, number, name, figures):
        pass


def _file(folder: Path, fields) -> Path:
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(fields(train={"epochs": 3, "save_every": 2})), "utf-8")
    return file


@pytest.fixture(scope="module")
def validated(tiny_recipe_in, tmp_path_factory):
    """Two folds that nobody disturbs, and the recipe's file."""
    folder = tmp_path_factory.mktemp("validated")
    file = _file(folder, tiny_recipe_in(folder))
    plan = service.plan_folds(Recipe.read(file), 2, 1)
    return service.start(plan, base=folder / "runs", view=Silent())[0], file


def figures(folder):
    found = json.loads(folder.summary.read_text())["cross_validation"]
    return found["spreads"], [{**run, "run": ""} for run in found["runs"]]


def test_each_sample_is_held_out_once_and_the_summary_is_of_the_folds(validated, etude_command):
    folder, _ = validated
    runs = list_runs(folder.path / "trials")
    losses = [json.loads(run.summary.read_text())["eval_loss"] for run in runs]
    summary = json.loads(folder.summary.read_text())
    assert summary["eval_loss"] == pytest.approx(statistics.mean(losses))
    (loss, *_), rows = figures(folder)
    assert loss["deviation"] == pytest.approx(statistics.stdev(losses))
    assert loss["low"] < loss["mean"] < loss["high"]
    assert sum(row["held_out"] for row in rows) == 48
    assert all(row["trained"] + row["held_out"] == 48 for row in rows)
    assert [run.path for run in list_runs(folder.path.parent)] == [folder.path]
    listed = etude_command("runs", "list", "--runs", folder.path.parent).stdout
    assert listed.count("tiny-folds") == 1 and "finished" in listed
    page = folder.report.read_text()
    assert "Content-Security-Policy" in page and "Every fold" in page
    assert f"{loss['mean']:.3f}" in page
    assert not any(list(run.checkpoints.iterdir()) for run in runs)


def test_a_fold_is_the_run_of_its_recipe(validated, tmp_path):
    folder, _ = validated
    run = list_runs(folder.path / "trials")[1]
    alone = tune(Recipe.read_run(run.recipe), base=tmp_path)
    assert alone.summary["eval_loss"] == json.loads(run.summary.read_text())["eval_loss"]


def test_folds_that_were_stopped_and_killed_end_as_if_they_had_not(validated, tmp_path):
    expected, file = validated
    base = tmp_path / "runs"
    first = _begun(base, file, "--folds", "2")
    folder = _wait_for_fold(first, base, 1)
    first.send_signal(signal.SIGINT)
    _, told = first.communicate(timeout=120)
    assert first.returncode == 130
    assert f"etude tune --resume {folder.path}" in told
    assert folder.state == "stopped"

    second = _begun(base, "--resume", folder.path)
    _wait_for_fold(second, base, 2)
    second.kill()
    second.communicate(timeout=120)
    while any(run.is_locked() for run in list_runs(folder.path / "trials")):
        time.sleep(0.01)  # the worker of a killed command ends by itself
    assert folder.state == "killed"

    one = list_runs(folder.path / "trials")[0]
    assert one.state == "finished"
    written = one.summary.stat().st_mtime_ns
    again, finished = service.start(
        service.plan_folds_resumption(RunFolder(folder.path)), base=base, view=Silent()
    )
    assert finished and again.path == folder.path
    assert figures(again) == figures(expected)
    assert one.summary.stat().st_mtime_ns == written


def _begun(base: Path, *words) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "etude", "tune", *map(str, words), "--runs", str(base)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def _wait_for_fold(process, base: Path, number: int) -> RunFolder:
    """Wait until a fold has trained a step; return the folder of all."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        assert process.poll() is None, process.stderr.read()
        for metrics in base.glob(f"*/trials/fold-01-{number:02}-*/metrics.jsonl"):
            if metrics.stat().st_size:
                return RunFolder(metrics.resolve().parent.parent.parent)
        time.sleep(0.01)
    raise AssertionError("no fold began")


def test_more_repeats_can_be_added_and_another_number_of_folds_is_refused(
    validated, tmp_path, etude_command
):
    folder, file = validated
    with pytest.raises(RecipeError, match="begun with --folds 2 --repeats 1"):
        service.plan_folds_resumption(folder, 4)
    plan = service.plan_folds_resumption(folder, repeats=2)
    assert len(plan.division.runs) == 4
    told = etude_command("eval", str(folder.path))
    assert told.returncode == 2 and "is a cross-validation: name one of its runs" in told.stderr
    told = etude_command("tune", str(file), "--repeats", "2", "--runs", tmp_path)
    assert told.returncode == 2 and "--repeats is for --folds" in told.stderr
    told = etude_command("tune", "--resume", str(folder.path), "--set", "train.epochs=9")
    assert told.returncode == 2 and "cross-validation" in told.stderr
    with pytest.raises(RecipeError, match=r"--folds: data.fold .* omit data.eval"):
        service.plan_folds(Recipe.read(file, ["data.eval=dev.jsonl"]), 2, 1)
    assert list_runs(tmp_path) == []


def test_data_that_cannot_be_divided_leave_no_folder(validated, tmp_path):
    _, file = validated
    plan = service.plan_folds(Recipe.read(file), 60, 1)
    with pytest.raises(RunError, match="fold 1 of 60: 48 different samples are fewer than 60"):
        service.start(plan, base=tmp_path, view=Silent())
    assert list_runs(tmp_path) == []


def test_two_cross_validations_are_compared_by_the_samples_that_both_held_out(
    validated, tmp_path, etude_command
):
    folder, _ = validated
    other = tmp_path / "other"
    shutil.copytree(folder.path, other)
    told = etude_command("runs", "compare", str(folder.path), str(other))
    assert told.returncode == 0, told.stderr
    assert "as good as" in told.stdout
