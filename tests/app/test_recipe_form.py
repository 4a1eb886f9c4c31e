"""A recipe as a form, as YAML and as a command: one thing in three views."""

from __future__ import annotations

import json
import shlex

import pytest

from etude.app.recipe_form import WHOLE, command_of, read_form, recipe_text, write_form
from etude.app.tune import DataOptions, plan_run
from etude.core.errors import RecipeError
from etude.tuning.config.recipe import Recipe

TEXT = "task: chat\nmodel:\n  id: smollm2-135m\ndata:\n  train: rows.jsonl\n"


def fields_of(text: str) -> dict:
    return {field.key: field for group in read_form(text).groups.values() for field in group}


def test_the_form_shows_what_the_text_says_and_the_defaults():
    fields = fields_of(TEXT + "train:\n  lr: 1.0e-3\n  max_steps: 7\n")
    assert fields["data.train"].value == "rows.jsonl"
    assert fields["model.id"].value == "smollm2-135m"
    assert fields["train.max_steps"].value == "7"
    assert fields["train.lr"].value == "0.001"
    assert fields["adapter.rank"].value == fields["adapter.rank"].default
    assert "qlora" not in fields["quant.kind"].choices and "nf4" in fields["quant.kind"].choices
    assert all(field.help for field in fields.values())
    assert read_form("model: smollm2-135m\ndata: {train: x}").is_valid, "a short form"


def test_a_changed_field_changes_the_text_and_nothing_else():
    before = Recipe.parse({"task": "chat", "data": {"train": "rows.jsonl"}})
    text = recipe_text(before)
    typed = {key: field.value for key, field in fields_of(text).items()}
    assert Recipe.parse(json.loads(json.dumps(load(write_form(text, typed))))) == before
    changed = write_form(
        text,
        {
            **typed,
            "train.lr": "1e-3",
            "adapter.target_modules": "q_proj, v_proj",
            "data.prompt": "Question: {question}",
            "train.max_steps": "12",
            "data.system": "Answer: briefly.",
        },
    )
    recipe = Recipe.parse(load(changed))
    assert recipe.train.lr == 1e-3 and recipe.train.max_steps == 12
    assert recipe.adapter.target_modules == ["q_proj", "v_proj"]
    assert recipe.data.prompt == "Question: {question}"
    assert recipe.data.system == "Answer: briefly."
    again = write_form(changed, {"train.max_steps": "", "data.system": ""})
    assert Recipe.parse(load(again)).train.max_steps is None
    assert Recipe.parse(load(again)).data.system is None


def load(text: str) -> dict:
    import yaml

    return yaml.safe_load(text)


def test_what_is_wrong_stands_beside_its_field():
    text = write_form(TEXT, {"adapter.rank": "many", "train.lr": "-1", "train.patience": "3"})
    form = read_form(text)
    fields = {field.key: field for group in form.groups.values() for field in group}
    assert fields["adapter.rank"].value == "many" and "many" in fields["adapter.rank"].error
    assert fields["train.lr"].error
    assert not fields["train.epochs"].error
    assert not form.is_valid and form.command == ""
    repaired = write_form(text, {"adapter.rank": "8", "train.lr": "1e-3", "train.eval_every": "5"})
    assert read_form(repaired).errors == {}


def test_keys_that_contradict_each_other_are_said_at_one_of_them():
    form = read_form(TEXT + "train:\n  patience: 3\n")
    assert form.errors == {"train.patience": "train.patience needs train.eval_every"}
    form = read_form(TEXT + "adapter:\n  rnk: 3\n")
    assert "did you mean" in form.errors[WHOLE]


@pytest.mark.parametrize("text", ["- a", "a: [", "just text", "\x00"])
def test_a_text_that_is_no_recipe_is_said_and_kept(text):
    form = read_form(text)
    assert form.yaml == text and form.errors[WHOLE] and not form.is_valid
    assert form.groups
    with pytest.raises(RecipeError):
        write_form(text, {"train.lr": "1"})


def test_data_that_are_missing_are_said_at_their_field():
    assert "data.train" in read_form("task: chat").errors


RECIPES = {
    "chat": {"data": {"train": "a file.jsonl", "eval": "dev.jsonl"}, "train": {"lr": 3e-4}},
    "text-classification": {
        "data": {"train": "reviews.csv", "text": "review", "label": "stars"},
        "model": {"id": "smollm2-135m"},
        "quant": {"kind": "none"},
    },
    "language-modeling": {"data": {"train": ["a.txt", "b.txt"]}, "name": "two files"},
    "embedding": {"data": {"train": "pairs.jsonl", "positive": 'it\'s "quoted"'}},
}


@pytest.mark.parametrize("task", RECIPES)
def test_the_command_starts_the_same_run(task, tmp_path, monkeypatch):
    recipe = Recipe.parse({"task": task, **RECIPES[task]})
    words = shlex.split(command_of(recipe))
    assert words[:2] == ["etude", "tune"]
    options: dict[str, list[str]] = {"--set": [], "--data": [], "--model": []}
    for name, value in zip(words[3::2], words[4::2], strict=True):
        options[name].append(value)
    # What `etude tune` does with these; the columns are named, so that no file is read.
    monkeypatch.setattr("etude.tuning.tasks.detect.resolved", lambda r: (r, []))
    plan = plan_run(
        words[2],
        options["--set"],
        model=next(iter(options["--model"]), None),
        data=DataOptions(next(iter(options["--data"]), None)),
    )
    assert plan.recipe == recipe
