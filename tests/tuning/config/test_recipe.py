"""Recipes: what is written is what is read, and what does not fit is named."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from etude.core.errors import RecipeError
from etude.tuning.config.recipe import Recipe, apply_override
from etude.tuning.config.sections.adapter import AdapterSpec
from etude.tuning.config.sections.data import DataSpec
from etude.tuning.config.sections.quant import QuantSpec
from etude.tuning.config.sections.train import TrainSpec

MINIMAL = {"data": {"train": "rows.jsonl"}}

recipes = st.builds(
    Recipe,
    name=st.from_regex(r"[a-z]{1,9}", fullmatch=True),
    adapter=st.builds(
        AdapterSpec,
        kind=st.just("lora"),
        rank=st.integers(1, 512),
        alpha=st.floats(0.1, 512),
        dropout=st.floats(0, 0.9),
        target_modules=st.one_of(st.just("all-linear"), st.lists(st.text(min_size=1), min_size=1)),
    ),
    quant=st.builds(
        QuantSpec, kind=st.sampled_from(["nf4", "none"]), block=st.sampled_from([32, 64, 4096])
    ),
    data=st.builds(DataSpec, kind=st.just("files"), train=st.text(min_size=1)),
    train=st.builds(
        TrainSpec,
        lr=st.floats(1e-6, 1),
        epochs=st.floats(0.1, 9),
        max_grad_norm=st.one_of(st.none(), st.floats(0.1, 9)),
        eval_every=st.integers(1, 99),
        patience=st.one_of(st.none(), st.integers(1, 9)),
    ),
)


@pytest.mark.parametrize("path", ["\0", "~nobody-at-all/x", "x" * 5000])
def test_what_is_no_path_is_left_to_whoever_opens_it(path):
    fields = {**MINIMAL, "data": {"train": path, "test": "test.jsonl"}}
    assert Recipe.parse(fields).data.train == path


@given(recipes)
def test_a_recipe_written_as_yaml_is_read_back_equal(recipe):
    assert Recipe.parse(yaml.safe_load(recipe.to_yaml())) == recipe


def test_a_model_may_be_named_plainly_and_overridden_by_part():
    fields = {**MINIMAL, "model": "minilm"}
    assert Recipe.parse(fields).model.id == "minilm"
    apply_override(fields, "model.dtype=float32")
    assert Recipe.parse(fields).model.id == "minilm"
    assert Recipe.parse(fields).model.dtype == "float32"


@pytest.mark.parametrize(
    ("text", "value"), [("1e-3", 0.001), ("2.5E+2", 250.0), ("nan", "nan"), ("[a, b]", ["a", "b"])]
)
def test_an_override_is_read_as_yaml_and_numbers_as_people_write_them(text, value):
    fields = {}
    apply_override(fields, f"train.lr={text}")
    assert fields == {"train": {"lr": value}}


def test_every_fault_of_a_recipe_is_named_at_once():
    fields = {"data": {"train": "x", "pakcing": True}, "train": {"lr": -1}, "modle": "a"}
    with pytest.raises(RecipeError) as caught:
        Recipe.parse(fields)
    for words in ("data.pakcing", "'data.packing'", "train.lr", "'modle'", "'model'"):
        assert words in str(caught.value)


@pytest.mark.parametrize("content", ["- a\n- b\n", "a: [", "just words"])
def test_a_file_that_is_no_recipe_is_one_line(tmp_path, content):
    path = tmp_path / "r.yaml"
    path.write_text(content, "utf-8")
    with pytest.raises(RecipeError) as caught:
        Recipe.read(path)
    assert "r.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_data_given_by_hand_replaces_what_the_recipe_held_out(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("data: {kind: docstrings, packages: [a], eval_packages: [b]}", "utf-8")
    spec = Recipe.read(path, data="my/package").data
    assert (spec.packages, spec.eval_packages) == (["my/package"], [])
    path.write_text("data: {train: a.jsonl, eval: b.jsonl}", "utf-8")
    spec = Recipe.read(path, data="c.jsonl").data
    assert (spec.train, spec.eval) == ("c.jsonl", None)


def test_methods_differ_only_in_what_makes_them_one():
    qlora = Recipe.parse(MINIMAL)
    assert qlora.method == "qlora"
    lora, full = qlora.with_method("lora"), qlora.with_method("full")
    assert (lora.method, full.method) == ("lora", "full")
    assert lora.train == qlora.train
    assert full.train.lr == pytest.approx(qlora.train.lr / 10)
    assert full.with_method("qlora") == qlora


def test_full_fine_tuning_has_no_factors_whose_rates_or_product_it_could_decay():
    recipe = Recipe.parse({"train": {"delta_decay": 0.1, "loraplus_lr_ratio": 4}})
    full = recipe.with_method("full").train
    assert (full.delta_decay, full.loraplus_lr_ratio) == (0.0, 1.0)
    assert recipe.with_method("lora").train.delta_decay == 0.1
