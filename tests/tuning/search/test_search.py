"""Whole searches of a tiny model: killed, stopped, resumed, refused."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

from etude.app import search as service
from etude.core.errors import RecipeError, RunError
from etude.tuning.config.recipe import Recipe
from etude.tuning.pipeline import tune
from etude.tuning.runs.folder import RunFolder, list_runs
from etude.tuning.search.record import SearchRecord

pytestmark = pytest.mark.integration

# A micro-batch a sample: a standard error needs some.
SPACE = {
    "train": {
        "epochs": 4,
        "micro_tokens": 16,
        "lr": {"low": 1e-4, "high": 1e-1, "log": True, "default": 1e-3},
    },
    "adapter": {"rank": {"choices": [2, 4, 8], "default": 4}},
    "search": {"trials": 7, "rungs": 2},
}


class Silent:
    """A view that shows nothing, and calls back at each event."""

    def __init__(self, on_event=lambda number, name, figures: None):
        self.on_event = on_event
        self.lines = []

    def on_record(self, record):
        pass

    def on_message(self, text):
        self.lines.append(text)


def _file(folder: Path, fields, **sections) -> Path:
    file = folder / "space.yaml"
    file.write_text(yaml.safe_dump(fields(**{**SPACE, **sections})), "utf-8")
    return file


def _search(file, base, view=None, **settings):
    plan = service.plan_search(file, settings=settings)
    return service.start(plan, base=base, view=view or Silent())


@pytest.fixture(scope="module")
def searched(tiny_recipe_in, tmp_path_factory):
    """A search that nobody disturbs, and the file of its space."""
    folder = tmp_path_factory.mktemp("searched")
    file = _file(folder, tiny_recipe_in(folder))
    return _search(file, folder / "runs"), file


def _outcomes(record: SearchRecord):
    return [
        (trial.number, trial.values, trial.state, trial.rungs, trial.objectives, trial.error)
        for trial in record.trials
    ]


def test_a_search_names_the_default_the_best_and_writes_its_recipe(searched):
    result, _ = searched
    record = result.record
    assert result.finished
    assert record.begun == 7
    # The default, and one of each bracket of three, in full.
    assert [trial.bracket for trial in record.trials if trial.state == "finished"] == [0, 1, 2]
    best = record.trial(record.selection.best)
    assert best is not None
    assert best.value == min(t.objectives[0] for t in record.trials if t.objectives)
    assert best.error is not None
    recipe = Recipe.read(result.best_recipe)
    assert recipe.train.lr == best.values["train.lr"]
    assert recipe.adapter.rank == best.values["adapter.rank"]
    summary = json.loads((result.folder.path / "summary.json").read_text())
    assert summary["eval_loss"] == best.value


def test_the_base_is_measured_once_and_a_trial_is_the_run_of_its_recipe(searched, tmp_path):
    result, _ = searched
    runs = list_runs(result.folder.path / "trials")
    assert len({(run.path / "before.json").read_text() for run in runs}) == 1
    best = result.record.trial(result.record.selection.best)
    alone = tune(Recipe.read(result.best_recipe), base=tmp_path)
    assert alone.summary["eval_loss"] == best.value


def test_every_trial_is_a_run_and_the_list_shows_the_search_once(searched, etude_command):
    result, _ = searched
    base = result.folder.path.parent
    assert [run.path for run in list_runs(base)] == [result.folder.path]
    listed = etude_command("runs", "list", "--runs", base).stdout
    assert len(re.findall("tiny-search", listed)) == 1
    trials = list_runs(result.folder.path / "trials")
    assert len(trials) == 7
    shown = etude_command("runs", "show", str(trials[0].path))
    assert shown.returncode == 0
    assert "trial-000" in shown.stdout


def test_the_page_shows_the_trials_and_runs_no_script_of_others(searched):
    result, _ = searched
    page = (result.folder.path / "search.html").read_text()
    assert "Content-Security-Policy" in page
    assert "What decides" in page
    assert "train.lr" in page
    assert page.count("<tr") >= 7
    assert f"etude tune {result.best_recipe}" in page


def test_tuning_does_not_go_on_with_a_search(searched, etude_command):
    result, _ = searched
    for words in (("tune", "--resume"), ("eval",)):
        told = etude_command(*words, str(result.folder.path))
        assert told.returncode == 2
        assert "search" in told.stderr


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_search_that_was_ended_in_a_trial_ends_as_if_it_had_not(searched, tmp_path, how):
    result, file = searched
    base = tmp_path / "runs"
    process = subprocess.Popen(
        [sys.executable, "-m", "etude", "search", str(file), "--runs", str(base), "--quiet"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    # In the middle of a trial that was resumed at a rung, or of one before its rung.
    folder = _wait_for_trial(process, base, 2)
    process.send_signal(how)
    _, told = process.communicate(timeout=120)
    assert RunFolder.open(folder).state == ("killed" if how == signal.SIGKILL else "stopped")
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert f"etude search --resume {folder}" in told
    _wait_for_workers(folder)
    finished = {
        run.path.name: run.summary.stat().st_mtime_ns
        for run in list_runs(folder / "trials")
        if run.state == "finished"
    }
    with (folder / "journal.jsonl").open("ab") as journal:
        journal.write(b'{"op_code": 6, "wor')  # as a power cut leaves it

    plan = service.plan_search_resumption(str(folder), base)
    resumed = service.start(plan, base=base, view=Silent())
    assert resumed.finished
    assert _outcomes(resumed.record) == _outcomes(result.record)
    for name, written in finished.items():
        assert RunFolder(folder / "trials" / name).summary.stat().st_mtime_ns == written


def _wait_for_trial(process, base, number, limit=240.0):
    """Wait until a trial has recorded a step; return the search's folder."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        for metrics in base.glob(f"*/trials/trial-{number:03}-*/metrics.jsonl"):
            if metrics.stat().st_size:
                return metrics.resolve().parent.parent.parent  # not by the link `latest`
        if process.poll() is not None:
            raise AssertionError(f"the search ended early: {process.stderr.read()}")
        time.sleep(0.01)
    raise AssertionError("the search did not get there in time")


def _wait_for_workers(folder):
    """Wait until no process writes a trial any more: a worker ends with its search."""
    end = time.monotonic() + 60
    while any(run.is_locked() for run in list_runs(folder / "trials")):
        assert time.monotonic() < end, "a worker outlives its search"
        time.sleep(0.01)


def test_what_cannot_be_trained_is_counted_and_does_not_end_the_search(tiny_recipe, tmp_path):
    killed = []

    def crash(number, name, figures):
        if name == "step" and number and not killed:
            killed.append(number)
            for child in psutil.Process().children():
                # A child that has ended in the meantime has no command line.
                with contextlib.suppress(psutil.NoSuchProcess):
                    if "spawn_main" in " ".join(child.cmdline()):
                        os.kill(child.pid, signal.SIGKILL)

    file = _file(
        tmp_path,
        tiny_recipe,
        train={
            "epochs": 1,
            "lr": {"low": 1e-3, "high": 1e-2},
        },
        adapter={
            "rank": {"choices": [4, 50_000_000], "default": 4},
            "init": {"choices": ["default", "gaussian"]},
            "kind": {"choices": ["lora", "ia3"], "default": "lora"},
        },
        search={"trials": 4, "halving": False, "seed": 3},
    )
    result = _search(file, tmp_path / "runs", view=Silent(crash))
    states = {trial.number: trial for trial in result.record.trials}
    assert result.finished
    assert result.record.begun == 4
    kinds = {trial.state for trial in states.values()}
    assert kinds >= {"finished", "failed"}
    failed = [trial for trial in states.values() if trial.state == "failed"]
    assert [trial.number for trial in failed] == killed
    assert "SIGKILL" in failed[0].reason
    for trial in states.values():
        lora = trial.values["adapter.kind"] == "lora"
        if lora and trial.values["adapter.rank"] == 50_000_000:
            assert trial.state == "skipped" and "too large" in trial.reason
        if not lora and trial.values["adapter.init"] != "default":
            assert trial.state == "skipped"


def test_quality_against_bytes_gives_a_front(tiny_recipe, tmp_path):
    file = _file(tmp_path, tiny_recipe, train={"epochs": 1, "lr": 1e-2})
    result = _search(file, tmp_path / "runs", trials=3, against=["saved_bytes"])
    record = result.record
    sizes = [trial.figures["saved_bytes"] for trial in record.trials if trial.objectives]
    assert [trial.objectives[1] for trial in record.trials if trial.objectives] == sizes
    assert len(set(sizes)) == 3  # every rank once
    trained = [trial for trial in record.trials if trial.figures]
    smallest = min(trained, key=lambda trial: trial.figures["saved_bytes"])
    assert smallest.number in record.selection.front
    assert "Pareto front" in (result.folder.path / "search.html").read_text()
    # All ranks are drawn: the space is exhausted, which is said.
    longer = service.plan_search_resumption(str(result.folder.path), settings={"trials": 9})
    view = Silent()
    again = service.start(longer, base=tmp_path / "runs", view=view)
    assert again.record.begun == 3
    assert any("exhausted" in line for line in view.lines)


def test_a_search_of_another_space_is_not_gone_on_with(searched, tmp_path):
    result, file = searched
    fields = yaml.safe_load(file.read_text())
    fields["train"]["lr"]["high"] = 0.5
    fields["train"]["epochs"] = 9
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump(fields))
    with pytest.raises(RunError, match=r"another space .*train.epochs.*differ"):
        service.plan_search_resumption(str(result.folder.path), same_as=service.plan_search(other))
    same = service.plan_search_resumption(
        str(result.folder.path), same_as=service.plan_search(file)
    )
    assert same.space.ranges == service.plan_search(file).space.ranges


def test_a_metric_that_does_not_exist_names_near_ones(tiny_recipe, tmp_path):
    file = _file(tmp_path, tiny_recipe, train={"epochs": 1, "lr": {"low": 1e-3, "high": 1e-2}})
    with pytest.raises(RecipeError, match="did you mean 'rouge'"):
        _search(file, tmp_path / "runs", metric="rogue")


def test_a_default_that_cannot_be_trained_ends_the_search_and_leaves_nothing(tiny_recipe, tmp_path):
    file = _file(tmp_path, tiny_recipe, model={"id": str(tmp_path / "missing")})
    with pytest.raises(RunError, match=r"default recipe .* cannot be trained"):
        _search(file, tmp_path / "runs")
    assert list_runs(tmp_path / "runs") == []
