"""Recipes found by name: what wins, and what is said of those that are not there."""

from __future__ import annotations

from importlib import metadata

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from etude.core.errors import RecipeError
from etude.tuning.config.recipe import Recipe
from etude.tuning.config.shipped import find_recipe, shipped_recipes, summary_line


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch, tmp_path):
    """A folder that is empty, so that names are found whatever it holds."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["docstrings", "docstrings.yaml"])
def test_a_shipped_recipe_is_found_by_name(name):
    assert find_recipe(name) == shipped_recipes()["docstrings"]
    assert Recipe.read(name).name == "docstrings"


def test_a_file_of_that_name_comes_first_and_a_folder_does_not(elsewhere):
    (elsewhere / "docstrings").mkdir()
    assert find_recipe("docstrings") == shipped_recipes()["docstrings"]
    mine = elsewhere / "docstrings.yaml"
    mine.write_text("name: mine\ndata: {train: rows.jsonl}\n", "utf-8")
    assert Recipe.read("docstrings.yaml").name == "mine"
    assert Recipe.read(mine).name == "mine"


def test_a_missing_file_in_a_folder_is_not_replaced_by_a_shipped_recipe(elsewhere):
    with pytest.raises(RecipeError, match=r"no recipe at .*docstrings\.yaml"):
        find_recipe(elsewhere / "docstrings.yaml")
    with pytest.raises(RecipeError, match="no recipe at"):
        find_recipe("runs/docstrings")


def test_an_unknown_name_is_answered_by_the_nearest_and_the_list():
    with pytest.raises(RecipeError) as caught:
        Recipe.read("docstrngs")
    message = str(caught.value)
    assert "did you mean 'docstrings'" in message
    assert all(name in message for name in shipped_recipes())
    assert "\n" not in message


def test_every_shipped_recipe_says_what_it_does_in_its_first_line():
    for file in shipped_recipes().values():
        assert summary_line(file).endswith(".")


def _installed_with(extras):
    """Return the distributions that installing Etude with these extras brings, by their names."""
    found, left = set(), [("etude", frozenset(extras))]
    while left:
        name, wanted = left.pop()
        for line in metadata.requires(name) or ():
            need = Requirement(line)
            marker = need.marker
            if marker and not any(marker.evaluate({"extra": extra}) for extra in ("", *wanted)):
                continue
            key = (canonicalize_name(need.name), frozenset(need.extras))
            if key not in found:
                found.add(key)
                left.append(key)
    return {name for name, _ in found}


@pytest.mark.parametrize("name", ["docstrings", "gguf"])
def test_the_packages_that_a_recipe_reads_are_there_after_make_install(name):
    data = Recipe.read(name).data
    brought = _installed_with({"practice", "papers"})
    owners = metadata.packages_distributions()
    for package in (*data.packages, *data.eval_packages):
        if package != "stdlib":
            assert {canonicalize_name(one) for one in owners[package]} & brought, package
