"""Trackers: what TensorBoard itself reads back, and the example of the documentation."""

from __future__ import annotations

import json
import re
import runpy
import sys
import types
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from etude.core.errors import MissingExtraError
from etude.tuning.callbacks import Callback
from etude.tuning.config.recipe import Recipe
from etude.tuning.pipeline import tune
from etude.tuning.runs.folder import RunFolder
from etude.tuning.trackers.tensorboard import scalars

HOW_TO = Path(__file__).parents[3] / "docs" / "how-to.md"


class StopAfter(Callback):
    """Fails after a step, as a kill between two checkpoints would."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, record):
        if record.step == self.step:
            raise KeyboardInterrupt


def read(folder):
    """Every event by tag, as TensorBoard reads them: nothing left out, nothing purged."""
    found = EventAccumulator(
        str(folder / "tensorboard"), size_guidance={"scalars": 0}, purge_orphaned_data=False
    )
    found.Reload()
    return {tag: found.Scalars(tag) for tag in found.Tags()["scalars"]}


def expected(folder):
    """(step, value) by tag, of metrics.jsonl."""
    values: dict[str, list[tuple[int, float]]] = {}
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        for tag, value in scalars(record).items():
            values.setdefault(tag, []).append((record["step"], value))
    return values


def require_same(folder):
    events, written = read(folder), expected(folder)
    assert events.keys() == written.keys()
    for tag, found in events.items():
        steps, values = zip(*written[tag], strict=True)
        assert [event.step for event in found] == list(steps)
        assert [event.value for event in found] == pytest.approx(values, rel=1e-6)
        times = [event.wall_time for event in found]
        assert times == sorted(times)


def test_tensorboard_reads_every_step_once_also_of_a_resumed_run(tiny_recipe, tmp_path):
    train = {"epochs": 2, "save_every": 4, "eval_every": 5, "trackers": ["tensorboard"]}
    recipe = Recipe.parse(tiny_recipe(train=train))
    with pytest.raises(KeyboardInterrupt):
        tune(recipe, base=tmp_path, callbacks=[StopAfter(7)])
    (path,) = (run for run in tmp_path.glob("tiny-*") if not run.is_symlink())
    folder = RunFolder.open(path)
    run = tune(Recipe.read_run(folder.recipe), base=tmp_path, resume=folder)
    require_same(run.folder)
    events = read(run.folder)
    losses = [event.step for event in events["train/loss"]]
    assert losses == list(range(1, run.summary["steps"] + 1))
    assert events["eval/loss"][0].step == 5


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_its_events_anew(
    tiny_recipe, tmp_path
):
    train = {"epochs": 1, "save_every": 50, "trackers": ["tensorboard"]}
    recipe = Recipe.parse(tiny_recipe(train=train))
    whole = tune(recipe, base=tmp_path)
    folder = RunFolder.open(whole.folder)
    for file in folder.checkpoints.iterdir():
        file.unlink()
    folder.set_state("stopped")
    require_same(tune(Recipe.read_run(folder.recipe), base=tmp_path, resume=folder).folder)


def test_no_run_has_events_unless_it_is_asked_for(tiny_recipe, tmp_path, monkeypatch):
    run = tune(Recipe.parse(tiny_recipe(train={"epochs": 1})), base=tmp_path)
    assert not (run.folder / "tensorboard").exists()
    monkeypatch.setattr("etude.core.extras.find_spec", lambda _: None)
    recipe = Recipe.parse(tiny_recipe(train={"trackers": ["tensorboard"]}))
    with pytest.raises(MissingExtraError, match=r"pip install 'etude\[tensorboard\]'"):
        tune(recipe, base=tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_numbers_that_are_not_finite_are_left_out():
    record = {"step": 3, "loss": None, "grad_norm": float("inf"), "lr": 0.5, "eval_accuracy": 1}
    assert scalars(record) == {"train/lr": 0.5, "eval/accuracy": 1.0}


def test_the_example_of_a_tracker_of_ones_own_runs(tiny_recipe, tmp_path, monkeypatch):
    import yaml

    (code,) = (
        block
        for block in re.findall(r"```python\n(.*?)```", HOW_TO.read_text("utf-8"), re.DOTALL)
        if "import mlflow" in block
    )
    script, recipe = tmp_path / "with_mlflow.py", tmp_path / "recipe.yaml"
    script.write_text(code, "utf-8")
    recipe.write_text(yaml.safe_dump(tiny_recipe(train={"epochs": 1, "eval_every": 4})), "utf-8")
    logged: list[tuple[str, object]] = []

    class Active:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            logged.append(("end", None))

    # As MLflow 2 and 3 declare them.
    mlflow = types.ModuleType("mlflow")
    mlflow.start_run = lambda run_id=None, experiment_id=None, run_name=None: Active()
    mlflow.log_params = lambda params, synchronous=None: logged.append(("params", params))
    mlflow.log_metrics = lambda metrics, step=None, synchronous=None: logged.append(
        ("metrics", (step, metrics))
    )
    mlflow.log_artifact = lambda local_path, artifact_path=None: logged.append(
        ("artifact", Path(local_path).read_text("utf-8")[:15])
    )
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    monkeypatch.setattr(sys, "argv", [str(script), str(recipe)])
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(script), run_name="__main__")
    steps = [value[0] for name, value in logged if name == "metrics" and "loss" in value[1]]
    assert steps == list(range(1, len(steps) + 1)) and len(steps) > 4
    evaluated = [value for name, value in logged if name == "metrics" and "eval_loss" in value[1]]
    assert evaluated[0][0] == 4
    assert logged[0] == ("params", {"model": logged[0][1]["model"], "rank": 4, "lr": 1e-2})
    assert logged[-2:] == [("artifact", "<!doctype html>"), ("end", None)]
