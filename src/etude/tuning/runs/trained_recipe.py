"""The recipe of a run as its model was trained by it."""

from __future__ import annotations

from typing import Any

from etude.tuning.config.recipe import Recipe
from etude.tuning.runs.folder import RunFolder


def trained_recipe(folder: RunFolder) -> Recipe:
    """Return a run's recipe with the system message that all its training conversations had.

    Raises:
        RecipeError: the recipe cannot be read.
        RunError: data.json is damaged.
    """
    recipe = Recipe.read_run(folder.recipe)
    record: dict[str, Any] = folder.read_json("data.json") or {}
    system = record.get("system")
    if recipe.data.system is not None or not isinstance(system, str):
        return recipe
    return with_system(recipe, system)


def with_system(recipe: Recipe, system: str | None) -> Recipe:
    """Return a recipe with another system message."""
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"system": system})})
