"""Averages of runs: the mean of the changes, a run like any other, its gain as it is."""

from __future__ import annotations

import json

import pytest
import torch

from etude.core.errors import AdapterError, RunError
from etude.tuning.adapters.read import read_adapter
from etude.tuning.config.recipe import Recipe
from etude.tuning.evaluation import evaluate_run
from etude.tuning.model_soup import average_runs
from etude.tuning.pipeline import tune
from etude.tuning.runs.folder import RunFolder

ANIMALS = ("cat", "dog", "bird")
COLOURS = ("red", "green", "blue", "one", "two", "three", "four", "five")


def rows(colours):
    return [
        {"text": f"the {colour} {animal} is {mood}", "label": mood}
        for colour in colours
        for animal in ANIMALS
        for mood in ("good", "bad")
    ]


@pytest.fixture
def seeds(classifier_fields, write_jsonl, tmp_path):
    """Two runs that differ in their seed, with one evaluation file."""
    data = write_jsonl(rows(COLOURS[:6]))
    held = write_jsonl(rows(COLOURS[6:]), "dev.jsonl")
    return [
        RunFolder.open(
            tune(
                Recipe.parse(
                    classifier_fields(
                        data,
                        name=f"seed-{seed}",
                        data={"eval": str(held)},
                        train={"epochs": 2, "seed": seed},
                    )
                ),
                base=tmp_path / "runs",
            ).folder
        )
        for seed in (1, 2)
    ]


def change(folder, path):
    """s B A of a module, in float64."""
    part = read_adapter(folder).parts[path]
    down, up = part.tensors["lora_A"].double(), part.tensors["lora_B"].double()
    return part.scaling * up @ down


def test_the_average_is_the_mean_of_the_changes_and_of_the_heads(seeds, tmp_path, etude_command):
    out = tmp_path / "runs" / "soup"
    names = [str(run.path) for run in seeds]
    told = etude_command("adapters", "average", *names, "-o", out, "--runs", tmp_path / "runs")
    assert told.returncode == 0, told.stderr
    saved = [read_adapter(run.adapter) for run in seeds]
    soup = read_adapter(out / "adapter")
    assert soup.parts.keys() == saved[0].parts.keys()
    for path in soup.parts:
        mean = sum(change(run.adapter, path) for run in seeds) / 2
        torch.testing.assert_close(change(out / "adapter", path), mean, rtol=1e-5, atol=1e-7)
        assert soup.parts[path].rank == 8
    for path, module in soup.modules.items():
        for name, tensor in module.items():
            mean = sum(one.modules[path][name] for one in saved) / 2
            torch.testing.assert_close(tensor, mean)

    # It is a run like any other, and what was printed is what it is.
    summary = json.loads((out / "summary.json").read_text())
    again = evaluate_run(RunFolder.open(out))["tuned"]
    assert again["loss"] == pytest.approx(summary["eval_loss"], rel=1e-5)
    results = summary["average"]["results"]
    for run in seeds:
        assert results[run.name]["loss"] == pytest.approx(
            json.loads(run.summary.read_text())["eval_loss"], rel=1e-5
        )
    assert summary["average"]["says"] in told.stdout.replace("\n", " ")
    mean = sum(results[run.name]["accuracy"] for run in seeds) / 2
    assert f"{100 * mean:.1f} % on average" in told.stdout
    assert etude_command("predict", str(out), stdin="the red cat is good\n").returncode == 0
    assert "soup" in etude_command("runs", "list", "--runs", tmp_path / "runs").stdout
    told = etude_command("adapters", "average", *names, "-o", out)
    assert told.returncode == 2 and "already exists" in told.stderr


def test_a_rank_takes_the_nearest_average_of_that_rank(seeds, tmp_path):
    with RunFolder.make(tmp_path / "narrow") as folder:
        average_runs(seeds, folder, rank=3)
    for path, part in read_adapter(folder.adapter).parts.items():
        assert part.rank == 3
        mean = sum(change(run.adapter, path) for run in seeds) / 2
        left, values, right = torch.linalg.svd(mean)
        nearest = (left[:, :3] * values[:3]) @ right[:3]
        torch.testing.assert_close(change(folder.adapter, path), nearest, rtol=1e-4, atol=1e-6)


def test_runs_that_cannot_be_compared_are_refused_and_leave_nothing(
    seeds, classifier_fields, write_jsonl, tmp_path, etude_command
):
    def run(file, **sections):
        return RunFolder.open(
            tune(Recipe.parse(classifier_fields(file, **sections)), base=tmp_path / "other").folder
        )

    data = write_jsonl(rows(COLOURS[:6]))
    split = [run(data, train={"epochs": 1, "seed": seed}) for seed in (1, 2)]
    with pytest.raises(RunError, match="held out other samples"):
        average_runs(split, RunFolder.make(tmp_path / "a"))
    held = tmp_path / "dev.jsonl"
    assert average_runs(split, RunFolder.make(tmp_path / "b"), data=held).folder.state == "finished"
    named = [{**row, "label": row["label"].upper()} for row in rows(COLOURS[:6])]
    other = run(write_jsonl(named, "upper.jsonl"), train={"epochs": 1})
    out = tmp_path / "c"
    told = etude_command("adapters", "average", str(seeds[0].path), str(other.path), "-o", out)
    assert told.returncode == 2 and "differ in their task or their classes" in told.stderr
    assert not out.exists()
    full = run(data, adapter={"kind": "dora"}, train={"epochs": 1, "seed": 1})
    with pytest.raises(AdapterError, match="kind dora, which cannot be combined"):
        average_runs([split[0], full], RunFolder.make(tmp_path / "d"))
    told = etude_command("adapters", "average", str(seeds[0].path), "-o", out)
    assert told.returncode == 2 and "two different runs" in told.stderr
