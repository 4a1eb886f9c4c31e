"""A space is a recipe whose values may be ranges."""

from __future__ import annotations

import pytest
import yaml

from etude.core.errors import RecipeError
from etude.tuning.config.recipe import Recipe
from etude.tuning.config.shipped import find_space, shipped_spaces
from etude.tuning.search.priors import prior_ranges
from etude.tuning.search.space import Space, read_space, space_of

FIELDS = {"data": {"train": "rows.jsonl"}}


def _space(text):
    return space_of({**FIELDS, **yaml.safe_load(text)}, "space.yaml")


def test_ranges_stand_in_place_of_values_and_the_default_is_a_recipe():
    space = _space(
        """
        train: {lr: {low: 1e-5, high: 1e-3, log: true, default: 2e-4}}
        adapter: {rank: {choices: [4, 8, 16]}, alpha: {low: 8, high: 64, step: 8}}
        """
    )
    assert {one.key: one.default for one in space.ranges} == {
        "train.lr": 2e-4,
        "adapter.rank": 16,  # the recipe's own default, which is among the choices
        "adapter.alpha": 32.0,
    }
    assert space.default.train.lr == 2e-4
    recipe = space.recipe({"train.lr": 1e-3, "adapter.rank": 4, "adapter.alpha": 16.0}, "one")
    assert (recipe.train.lr, recipe.adapter.rank, recipe.adapter.alpha) == (1e-3, 4, 16.0)


def test_a_default_that_is_not_given_lies_in_the_middle_of_the_scale():
    (lr,) = _space("train: {lr: {low: 1e-6, high: 1e-4, log: true}}").ranges
    assert lr.default == pytest.approx(1e-5)


def test_a_condition_leaves_a_key_to_the_default_of_all_recipes():
    space = _space(
        """
        adapter:
          dropout: {low: 0.05, high: 0.2, when: {adapter.kind: lora}}
          kind: {choices: [lora, ia3]}
        """
    )
    assert [one.key for one in space.ranges] == ["adapter.kind", "adapter.dropout"]
    assert space.default_values() == {"adapter.kind": "lora", "adapter.dropout": 0.125}
    assert space.recipe({"adapter.kind": "ia3"}, "one").adapter.dropout == 0.0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("train: {lrr: {low: 1, high: 2}}", "unknown key 'train.lrr' (did you mean 'train.lr'?)"),
        ("train: {lr: {low: 1, hgh: 2}}", "a range has no 'hgh' (did you mean 'high'?)"),
        ("train: {lr: {low: 0, high: 2}}", "train.lr: input should be greater than 0, got 0"),
        ("train: {lr: {low: 2, high: 1}}", "low 2 is above high 1"),
        ("train: {lr: {low: 0, high: 1, log: true}}", "begins above 0"),
        ("adapter: {rank: {low: 1.5, high: 3}}", "takes whole numbers"),
        ("adapter: {kind: {choices: [lora, lorra]}}", "adapter.kind"),
        ("adapter: {rank: {choices: [4, 4]}}", "stands twice"),
        ("adapter: {rank: {choices: [4, 8], default: 5}}", "not among its choices"),
        ("adapter: {rank: {choices: [4], when: {adapter.knd: lora}}}", "'adapter.kind'"),
        ("adapter: {rank: {choices: [4], when: {adapter.kind: loar}}}", "did you mean 'lora'?"),
        ("search: {trails: 3}", "unknown key 'search.trails' (did you mean 'trials'?)"),
        ("search: {halving: true, against: [saved_bytes]}", "one objective"),
        ("search: {eta: 10, rungs: 4}", "at most 1/100"),
        (
            "adapter: {rank: {choices: [4], when: {train.seed: 1}}}\n"
            "train: {seed: {choices: [1, 2], when: {adapter.rank: 4}}}",
            "wait for each other",
        ),
    ],
)
def test_what_is_wrong_with_a_space_is_said_by_its_key(text, said):
    with pytest.raises(RecipeError) as raised:
        _space(text)
    assert said in str(raised.value)


@pytest.mark.parametrize("text", ["train: {lr: {low: 1, high: 2}}", "search: {trials: 3}"])
def test_a_run_says_that_ranges_are_for_a_search(text):
    with pytest.raises(RecipeError, match="which `etude search` takes"):
        Recipe.parse({**FIELDS, **yaml.safe_load(text)})


def test_a_space_is_read_again_from_its_own_record():
    space = _space(
        "adapter: {target_modules: {choices: [all-linear, [q_proj, v_proj]]}, "
        "rank: {low: 4, high: 64, log: true, when: {adapter.target_modules: all-linear}}}"
    )
    again = Space.from_json(space.as_json())
    assert (again.default, again.ranges, again.settings) == (
        space.default,
        space.ranges,
        space.settings,
    )


def test_a_recipe_without_ranges_is_searched_over_those_of_its_method():
    adapters = {one.key: one for one in prior_ranges(Recipe.parse({}))}
    fields = {"adapter": {"kind": "full"}, "quant": {"kind": "none"}, "train": {"lr": 1e-4}}
    full = {one.key: one for one in prior_ranges(Recipe.parse(fields))}
    assert adapters["train.lr"].high == pytest.approx(10 * full["train.lr"].high)
    assert "adapter.rank" in adapters
    assert "adapter.rank" not in full
    space = space_of({**FIELDS, "train": {"lr": 0.5}}, "recipe.yaml")
    assert all(one.contains(one.default) for one in space.ranges)
    assert space.default.train.lr == 0.5
    assert "no ranges in recipe.yaml" in space.notes[0]


@pytest.mark.parametrize("name", list(shipped_spaces()))
def test_shipped_spaces_are_sound(name):
    space = read_space(find_space(name))
    assert space.ranges
    assert all(one.contains(one.default) for one in space.ranges)
