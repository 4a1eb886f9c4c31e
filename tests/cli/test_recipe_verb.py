"""`etude recipe`: keys, show, check, schema."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import yaml

from etude.cli import main
from etude.tuning.config.recipe import Recipe

RECIPES = sorted((Path(__file__).resolve().parents[2] / "recipes").glob("*.yaml"))


@pytest.fixture
def etude(monkeypatch, capsys):
    def run(*arguments) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["etude", "recipe", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return run


def test_keys_are_found_by_name_and_by_meaning(etude):
    code, out, _ = etude("keys", "warmup")
    assert code == 0
    assert "train.warmup_ratio" in out
    assert "adapter.adalora.warmup" in out
    assert "train.loraplus_lr_ratio" in etude("keys", "LoRA+")[1]
    code, _, err = etude("keys", "florp")
    assert code == 2
    assert "no key has 'florp'" in err


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_what_is_shown_is_the_same_recipe(etude, file):
    code, out, _ = etude("show", file)
    assert code == 0
    assert Recipe.parse(yaml.safe_load(out)) == Recipe.read(file)
    code, out, _ = etude("show", file, "--changed")
    assert code == 0
    assert "# default" in out


def test_recipes_are_sound_or_their_faults_named(etude, tmp_path):
    code, out, _ = etude("check", *RECIPES)
    assert code == 0
    assert out.count("sound") == len(RECIPES)
    bad = tmp_path / "bad.yaml"
    bad.write_text("model: smollm2-135m\nadapter: {rnk: 8}\ntrain: {lr: -1}\n")
    code, _, err = etude("check", RECIPES[0], bad)
    assert code == 2
    assert "'adapter.rnk' (did you mean 'adapter.rank'?)" in err
    assert "train.lr" in err


def test_the_schema_is_json(etude):
    assert "properties" in json.loads(etude("schema")[1])


def test_a_schedule_is_drawn_counted_and_written(etude, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("train: {lr: 2.0e-3, lr_scheduler: one_cycle, warmup_ratio: 0.3}\n")
    picture = tmp_path / "schedule.svg"
    code, out, err = etude("schedule", file, "--steps", "50", "--svg", picture)
    assert code == 0, err
    assert "one_cycle: warm-up in 15 steps; peak 2.00e-3, last 2.00e-4" in out
    assert "50 steps, as given" in out
    assert out.count("•") > 20 and "step 50" in out
    assert picture.read_text("utf-8").startswith("<svg")
    code, out, _ = etude("schedule", file, "--steps", "50", "--json")
    found = json.loads(out)
    assert len(found["rates"]) == 50 and max(found["rates"]) == 2e-3 == found["rates"][14]


def test_the_steps_of_a_schedule_are_those_of_the_data(etude, tmp_path):
    rows = [{"prompt": f"question {i}", "completion": f"answer {i}"} for i in range(100)]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    file = tmp_path / "mine.yaml"
    file.write_text(
        f"data: {{train: {data}, eval_fraction: 0.2}}\ntrain: {{epochs: 3, batch_samples: 8}}\n"
    )
    code, out, err = etude("schedule", file, "--json")
    assert code == 0, err
    found = json.loads(out)
    samples = int(found["note"].partition("steps: ")[2].split()[0])
    assert 60 < samples < 100
    assert len(found["rates"]) == 3 * -(-samples // 8)
    assert "training samples, 8 a step, 3 epochs" in found["note"]


def test_a_plateau_is_drawn_as_the_worst_case(etude, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(
        "train: {lr: 1.0, lr_scheduler: reduce_lr_on_plateau, eval_every: 10, plateau_patience: 0,"
        " warmup_steps: 0}\n"
    )
    code, out, err = etude("schedule", file, "--steps", "40", "--json")
    assert code == 0, err
    rates = json.loads(out)["rates"]
    assert rates == [1.0] * 20 + [0.5] * 10 + [0.25] * 10


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.warmup_steps=60", "train.warmup_steps 60 is more than the 50 steps of the run"),
        ("train.lr_scheduler=cosin", "did you mean 'cosine'"),
        ("train.lr_power=3", "train.lr_power is for train.lr_scheduler: polynomial"),
    ],
)
def test_a_schedule_that_cannot_be_is_one_line(etude, override, message):
    code, out, err = etude("schedule", "docstrings", "--steps", "50", "--set", override)
    assert (code, out) == (2, "")
    assert message in err and err.count("\n") == 1
