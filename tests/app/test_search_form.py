"""A search as a form: what it suggests, what it refuses, and the same as YAML and as a command."""

from __future__ import annotations

import shlex

import pytest

from etude.app.search import different_keys
from etude.app.search_form import read_search_form
from etude.tuning.config.recipe import Recipe
from etude.tuning.search.priors import prior_ranges
from etude.tuning.search.space import read_space

FIELDS = {
    "task": "text-classification",
    "data": {"train": "rows.csv", "text": "text", "label": "label"},
    "train": {"lr": 3e-4},
}


@pytest.fixture
def recipe():
    return Recipe.parse(FIELDS)


def test_it_suggests_the_ranges_that_a_search_without_ranges_has(recipe):
    form = read_search_form(recipe)
    assert form.errors == {} and form.space is not None
    known = {one.key: one for one in prior_ranges(recipe)}
    assert {one.key: one for one in form.space.ranges} == known
    assert form.space.settings.trials == 20 and form.space.default.train.lr == 3e-4
    assert [one.key for one in form.ranges if not one.varied]


def test_what_is_typed_is_what_is_searched(recipe):
    typed = {
        "vary": ["train.lr", "adapter.rank", "adapter.dropout"],
        "low.train.lr": ["1e-4"],
        "high.train.lr": ["1e-2"],
        "log.train.lr": ["true"],
        "choices.adapter.rank": ["2, 4"],
        "low.adapter.dropout": ["0"],
        "high.adapter.dropout": ["0.3"],
        "trials": ["7"],
        "minutes": ["1.5"],
        "against": ["saved_bytes", "train_seconds"],
    }
    space = read_search_form(recipe, typed).space
    assert space is not None
    assert {one.key: one.text for one in space.ranges} == {
        "train.lr": "0.0001 to 0.01, log",
        "adapter.rank": "2, 4",
        "adapter.dropout": "0 to 0.3",
    }
    # A range that does not have the recipe's own value begins elsewhere.
    assert space.default.train.lr == 3e-4 and space.default.adapter.rank in (2, 4)
    chosen = space.settings
    assert (chosen.trials, chosen.minutes) == (7, 1.5)
    assert chosen.against == ("saved_bytes", "train_seconds")


@pytest.mark.parametrize(
    ("change", "key", "said"),
    [
        ({"low.train.lr": ["1"], "high.train.lr": ["0.1"]}, "train.lr", "is above high"),
        ({"low.train.lr": ["fast"]}, "train.lr", "is a number"),
        ({"low.train.lr": ["0"]}, "train.lr", "begins above 0"),
        ({"vary": ["adapter.rank"], "choices.adapter.rank": ["4, x"]}, "adapter.rank", "'x'"),
        ({"vary": ["adapter.rank"], "choices.adapter.rank": [" "]}, "adapter.rank", "a list"),
        ({"vary": []}, "", "Tick at least one"),
        ({"trials": [""]}, "trials", "How many"),
        ({"trials": ["0"]}, "trials", "greater than or equal to 1"),
        ({"minutes": ["-1"]}, "minutes", "greater than 0"),
        ({"against": ["beauty"]}, "against", "saved_bytes"),
    ],
)
def test_what_is_wrong_is_said_beside_its_field(recipe, change, key, said):
    good = {
        "vary": ["train.lr"],
        "low.train.lr": ["1e-4"],
        "high.train.lr": ["1e-2"],
        "log.train.lr": ["true"],
        "trials": ["7"],
    }
    assert read_search_form(recipe, good).errors == {}
    form = read_search_form(recipe, {**good, **change})
    assert form.space is None and form.command == ""
    assert list(form.errors) == [key] and said in form.errors[key]


def test_its_yaml_and_its_command_search_the_same(recipe, tmp_path, monkeypatch):
    from etude.app.search import plan_search
    from etude.app.tune import DataOptions

    monkeypatch.chdir(tmp_path)
    rows = "".join(f"{word} {n},{word}\n" for n, word in enumerate(["good", "bad"] * 8))
    (tmp_path / "rows.csv").write_text(f"text,label\n{rows}")
    form = read_search_form(recipe)
    assert form.space is not None
    (tmp_path / "space.yaml").write_text(form.yaml)
    assert different_keys(read_space(tmp_path / "space.yaml"), form.space) == []
    words = shlex.split(form.command)
    assert words[:4] == ["etude", "search", "text-classification", "--data"]
    options = list(zip(words[3::2], words[4::2], strict=True))
    planned = plan_search(
        words[2],
        [value for name, value in options if name == "--set"],
        model=dict(options)["--model"],
        data=DataOptions(dict(options)["--data"], None, None, None),
        settings={"trials": int(dict(options)["--trials"])},
    )
    assert different_keys(planned.space, form.space) == []
    assert planned.space.settings == form.space.settings
