"""`etude tune` without a recipe: the task, the columns and the model from options and data."""

from __future__ import annotations

import json

import pytest

from etude.app.tune import DataOptions, plan_run
from etude.core.errors import DataError, RecipeError


@pytest.fixture
def reviews(tmp_path):
    file = tmp_path / "reviews.csv"
    lines = [f'"a film of the year {n}",{("good", "bad")[n % 2]}' for n in range(20)]
    file.write_text("\n".join(["review,verdict", *lines]), "utf-8")
    return file


def test_without_a_recipe_the_task_and_its_recipe_come_from_the_data(reviews):
    plan = plan_run(None, data=DataOptions(str(reviews)))
    assert plan.recipe.task == "text-classification"
    assert plan.recipe.model.id == "minilm"
    assert (plan.recipe.data.text, plan.recipe.data.label) == ("review", "verdict")
    assert any("from texts and labels in columns 'review' and 'verdict'" in n for n in plan.notes)


def test_options_are_changes_of_the_recipe(reviews, tmp_path):
    held_out = tmp_path / "dev.csv"
    held_out.write_bytes(reviews.read_bytes())
    options = DataOptions(str(reviews), str(held_out), "review", "verdict")
    plan = plan_run(
        None, ["train.epochs=3"], task="text-classification", model="some/model", data=options
    )
    assert plan.recipe.model.id == "some/model"
    assert plan.recipe.train.epochs == 3
    assert plan.recipe.data.eval == str(held_out)


def test_chat_data_have_the_chat_recipe(tmp_path):
    file = tmp_path / "talk.jsonl"
    row = {"question": "what is it?", "answer": "it is this"}
    file.write_text("\n".join(json.dumps(row) for _ in range(4)), "utf-8")
    plan = plan_run(None, data=DataOptions(str(file)))
    assert plan.recipe.task == "chat"
    assert (plan.recipe.data.prompt, plan.recipe.data.completion) == ("question", "answer")


def test_neither_recipe_nor_data_is_one_line_with_ways_out():
    with pytest.raises(RecipeError, match=r"name a recipe .*--task .*--resume"):
        plan_run(None)


def test_an_unknown_task_has_near_names(reviews):
    with pytest.raises(RecipeError, match=r"no task 'text-clasification' \(did you mean 'text-c"):
        plan_run(None, task="text-clasification", data=DataOptions(str(reviews)))


def test_a_column_that_does_not_exist_is_an_error(reviews):
    plan = plan_run(None, task="text-classification", data=DataOptions(str(reviews), None, "revue"))
    from etude.tuning.tasks.registry import task_named

    with pytest.raises(DataError, match=r"no column 'revue' \(data.text\) \(did you mean 'review'"):
        task_named(plan.recipe.task).read(plan.recipe)
