"""Looking at data before training: by which recipe, with which tokenizer."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from etude.core.errors import DataError
from etude.core.paths import home

if TYPE_CHECKING:
    from etude.core.progress import Progress
    from etude.tuning.config.recipe import Recipe
    from etude.tuning.config.sections.data import DataSpec
    from etude.tuning.data.inspect import Inspection
    from etude.tuning.data.samples import ReaderFactory


def recipe_for(
    file: str | None,
    model: str | None = None,
    recipe: str | Path | None = None,
    overrides: Sequence[str] = (),
) -> Recipe:
    """Return the recipe to look at data by: the one named, or one made for the file.

    Args:
        file: a data file, `-` for standard input; with a recipe for docstrings, a package or
            folder. None is the recipe's own data.
        model: whose tokenizer and chat template are used; None is the recipe's.
        recipe: a YAML file, or the name of a shipped recipe.
        overrides: `dotted.key=value`, values read as YAML.

    Raises:
        DataError: neither file nor recipe is named.
        RecipeError: the recipe cannot be read.
    """
    from etude.tuning.config.recipe import Recipe, apply_override
    from etude.tuning.data.sources import standard_input

    if file is None and recipe is None:
        raise DataError("name a data file, or a recipe by --recipe")
    if file == standard_input.NAME:
        file = str(standard_input.store(_scratch()))
    if recipe is not None:
        chosen = Recipe.read(recipe, list(overrides))
    else:
        fields: dict[str, Any] = {"data": {"train": file, "eval_fraction": 0.0}}
        for override in overrides:
            apply_override(fields, override)
        chosen = Recipe.parse(fields, "options")
    changed: dict[str, Any] = {}
    if model is not None:
        changed["model"] = chosen.model.model_copy(update={"id": model})
    if file is not None and (recipe is not None or chosen.data.kind == "docstrings"):
        changed["data"] = chosen.data.model_copy(update=_pointed_at(file, chosen.data))
    return chosen.model_copy(update=changed)


def _scratch() -> Path:
    """Return a folder that is removed when this process ends."""
    home().mkdir(parents=True, exist_ok=True)
    # Not the system's temporary directory, which is often in memory.
    folder = tempfile.mkdtemp(prefix="stdin-", dir=home())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def _pointed_at(file: str, spec: DataSpec) -> dict[str, Any]:
    """Return what to change in a recipe's data so that it reads `file`."""
    if spec.kind == "docstrings":
        return {"packages": [file], "eval_packages": []}
    return {"kind": "files", "train": file, "eval": None}


def inspect_recipe(recipe: Recipe, samples: int, progress: Progress) -> Inspection:
    """Tokenise a recipe's data as training would, and keep the first `samples` to show.

    Raises:
        DataError: the data cannot be read.
        ModelError: the tokenizer cannot be had.
    """
    from etude.tuning.data.account import Account
    from etude.tuning.data.inspect import inspect_data
    from etude.tuning.data.samples import load_samples

    progress.start("Reading the data", None)
    account = Account()
    split = load_samples(
        recipe.data, recipe.train.seed, reader_of(recipe), account=account, refuse=False
    )
    progress.finish()
    tokenizer = tokenizer_of(recipe.model.id, progress)
    progress.start("Tokenising", None)
    inspection = inspect_data(tokenizer, recipe.data, split, samples, account)
    progress.finish()
    return inspection


def reader_of(recipe: Recipe) -> ReaderFactory:
    """Return what makes the reader of rows that the recipe's task uses."""
    if recipe.task == "text-classification":
        from etude.tuning.tasks.text_classification import labelled_reader

        return labelled_reader
    from etude.tuning.data.formats.registry import sample_reader

    return sample_reader


def tokenizer_of(model: str, progress: Progress) -> Any:
    """Return a model's tokenizer, fetching the model first if it is not on this machine.

    Raises:
        ModelError: the model is unknown, or cannot be fetched or read.
    """
    from contextlib import closing

    from etude.tuning.models.load import open_checkpoint
    from etude.tuning.models.pull import pull
    from etude.tuning.models.sources import resolve

    source = resolve(model)
    if source.path is None:
        pull(model, progress)
        source = resolve(model)
    with closing(open_checkpoint(source)) as checkpoint:
        return checkpoint.tokenizer()
