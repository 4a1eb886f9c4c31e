"""Tuning and runs without a command line: start a run, list it, describe, compare and remove it."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
import yaml

from etude.app.runs import (
    compare_runs,
    find_runs_to_compare,
    list_facts,
    removable,
    run_details,
    size_of,
)
from etude.app.tune import plan_resumption, plan_run, start
from etude.core.errors import RecipeError, RunError
from etude.tuning.runs.folder import RunFolder


class Labels:
    """A `Progress` that keeps what was begun."""

    def __init__(self):
        self.begun = []

    def start(self, label, total, unit=""):  # noqa: ARG002
        self.begun.append(label)

    def advance(self, n=1):
        pass

    def finish(self):
        pass


@pytest.fixture
def recipe(tiny_llama, tmp_path):
    """A recipe file for one step on a tiny model."""
    rows = [{"prompt": f"open {n}", "completion": f"Close {n}."} for n in range(16)]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    file = tmp_path / "tiny.yaml"
    fields = {
        "name": "tiny",
        "model": {"id": str(tiny_llama(layers=1)), "dtype": "float32"},
        "adapter": {"rank": 2},
        "quant": {"kind": "none"},
        "data": {"train": str(data), "eval_fraction": 0.3, "max_length": 64},
        "train": {"max_steps": 1, "batch_samples": 4, "micro_tokens": 128, "threads": 1},
        "eval": {"generate": 0},
    }
    file.write_text(yaml.safe_dump(fields), "utf-8")
    return file


def test_a_run_is_started_listed_compared_and_removed(recipe, tmp_path):
    base, progress = tmp_path / "runs", Labels()
    assert list_facts(base) == []
    plan = plan_run(recipe, ["adapter.rank=4"])
    assert plan.recipe.adapter.rank == 4 and plan.resume is None
    run = start(plan, base=base, progress=progress)
    assert run.finished and run.comparison is None and progress.begun

    (fact,) = list_facts(base)
    assert (fact.name, fact.state, fact.steps, fact.damaged) == (
        run.folder.name,
        "finished",
        1,
        None,
    )
    assert fact.figures["method"] == "lora" and fact.figures["eval_loss"] > 0
    assert fact.as_json()["eval_loss"] == fact.figures["eval_loss"]
    details = run_details("latest", base)
    assert details.facts == fact and details.summary and details.environment
    with pytest.raises(RecipeError, match="is finished; there is nothing to resume"):
        plan_resumption("latest", base)

    full = start(plan_run(recipe, ["name=whole"], method="full"), base=base)
    assert full.finished
    with pytest.raises(RunError, match="two different runs"):
        find_runs_to_compare(["latest", full.folder.name], base)
    folders = find_runs_to_compare([run.folder.name, full.folder.name], base)
    compared = compare_runs(folders)
    assert "adapter.kind" in {key for key, _ in compared.differences}
    methods = [row["method"] for row in compared.as_json()["runs"]]
    assert methods == ["lora", "full"]

    with pytest.raises(RunError, match="which runs may go"):
        removable(base)
    assert removable(base, failed=True) == []
    old = removable(base, older_than=timedelta(0))
    assert {one.name for one in old} == {run.folder.name, full.folder.name}
    assert removable(base, older_than=timedelta(days=1)) == []
    assert size_of(full.folder) > size_of(run.folder) > 0


def test_a_killed_run_goes_on_with_its_own_recipe(recipe, tmp_path):
    base = tmp_path / "runs"
    # What a run leaves that is killed while it loads: no process is left to record a state.
    folder = RunFolder.create("killed", base)
    folder.write_text("recipe.yaml", plan_run(recipe, ["adapter.rank=3"]).recipe.to_yaml())
    folder.set_state("running")
    (fact,) = list_facts(base)
    assert fact.state == "killed" and fact.steps == 0 and fact.detail
    assert fact.figures["method"] == "lora" and fact.figures["model"]
    plan = plan_resumption(fact.name, base)
    assert plan.resume is not None and plan.recipe.adapter.rank == 3
    run = start(plan, base=base)
    assert run.finished and run.folder.name == fact.name
    assert [one.state for one in list_facts(base)] == ["finished"]
