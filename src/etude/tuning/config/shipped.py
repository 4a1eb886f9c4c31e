"""Shipped recipes, found by name: `docstrings`, `docstrings.yaml`, or a path."""

from __future__ import annotations

import os
from pathlib import Path

from etude.core.errors import RecipeError, did_you_mean
from etude.core.paths import shipped_folder


def shipped_recipes() -> dict[str, Path]:
    """Return the files of the shipped recipes by name, in alphabetical order."""
    return {file.stem: file for file in sorted(shipped_folder("recipes").glob("*.yaml"))}


def shipped_spaces() -> dict[str, Path]:
    """Return the files of the shipped spaces of `etude search`, by name."""
    folder = shipped_folder("recipes") / "spaces"
    return {file.stem: file for file in sorted(folder.glob("*.yaml"))}


def find_space(space: str | os.PathLike[str]) -> Path:
    """Return the file of a search space: an existing file, a shipped space, or a recipe.

    Args:
        space: a path, or a name with or without `.yaml`.

    Raises:
        RecipeError: not found; the message lists what is shipped.
    """
    file = Path(space)
    name = file.name.removesuffix(".yaml")
    spaces = shipped_spaces()
    if not file.is_file() and file.name == str(space) and name in spaces:
        return spaces[name]
    try:
        return find_recipe(space)
    except RecipeError as error:
        raise RecipeError(f"{error}; shipped spaces: {', '.join(spaces)}") from None


def find_recipe(recipe: str | os.PathLike[str]) -> Path:
    """Return the file of a recipe: an existing file first, then a shipped recipe of that name.

    A path with a directory in it is never taken for a name, so a missing file of a run is not
    replaced by a shipped recipe.

    Args:
        recipe: a path, or the name of a shipped recipe with or without `.yaml`.

    Raises:
        RecipeError: not found; the message lists the shipped recipes.
    """
    file = Path(recipe)
    if file.exists() and not file.is_dir():
        return file
    shipped = shipped_recipes()
    name = file.name.removesuffix(".yaml")
    if file.name == str(recipe) and name in shipped:
        return shipped[name]
    hint = did_you_mean(name, shipped)
    listed = ", ".join(shipped)
    raise RecipeError(f"no recipe at {file}{hint}; shipped recipes: {listed} (etude recipe list)")


def summary_line(file: Path) -> str:
    """Return the first comment line of a recipe, which describes it; empty without one."""
    with file.open(encoding="utf-8") as lines:
        first = next(lines, "")
    return first.removeprefix("#").strip() if first.startswith("#") else ""
