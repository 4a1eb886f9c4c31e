"""Looking at data before training: by which recipe, with which tokenizer."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from etude.core.errors import DataError
from etude.core.paths import home

if TYPE_CHECKING:
    from etude.core.progress import Progress
    from etude.tuning.config.recipe import Recipe
    from etude.tuning.config.sections.data import DataSpec
    from etude.tuning.config.sections.model import ModelSpec
    from etude.tuning.data.account import Account
    from etude.tuning.data.inspect import Inspection
    from etude.tuning.data.schema import DataSplit


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
        chosen = _by_its_rows(Recipe.parse(fields, "options"))
    changed: dict[str, Any] = {}
    if model is not None:
        changed["model"] = chosen.model.model_copy(update={"id": model})
    if file is not None and (recipe is not None or chosen.data.kind == "docstrings"):
        changed["data"] = chosen.data.model_copy(update=_pointed_at(file, chosen.data))
    return chosen.model_copy(update=changed)


def _by_its_rows(recipe: Recipe) -> Recipe:
    """Return the recipe with the task that rows of labels, tags or pairs are for, and its model.

    Rows of anything else, and those that leave the task open, are read as the recipe says.
    """
    from etude.tuning.config.recipe import Recipe
    from etude.tuning.config.shipped import shipped_recipes
    from etude.tuning.tasks.detect import resolved

    if recipe.task not in ("chat", "auto") or recipe.data.kind != "files":
        return recipe
    try:
        found, _ = resolved(recipe.model_copy(update={"task": "auto"}))
    except DataError:
        return recipe
    if found.task in ("chat", "language-modeling"):
        return recipe
    model = Recipe.read(shipped_recipes()[found.task]).model
    return found.model_copy(update={"model": model})


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


def inspect_recipe(
    recipe: Recipe,
    samples: int,
    progress: Progress,
    *,
    origins: Sequence[str] = (),
) -> Inspection:
    """Tokenise a recipe's data as training would, and keep the first `samples` to show.

    Args:
        recipe: says how rows are read, and whose tokenizer is used.
        samples: that are shown.
        progress: told of each stage.
        origins: rows to show instead, as `train.csv:12`, held out or not; then the totals are of
            these rows alone.

    Raises:
        DataError: the data cannot be read, or have no such row.
        ModelError: the tokenizer cannot be had.
    """
    from etude.tuning.data.account import Account
    from etude.tuning.data.inspect import inspect_data, inspect_documents
    from etude.tuning.data.schema import DataSplit
    from etude.tuning.data.tagging.inspect import inspect_tagged
    from etude.tuning.tasks.detect import resolved
    from etude.tuning.tasks.inspect_images import inspect_images
    from etude.tuning.tasks.inspect_texts import inspect_texts

    progress.start("Reading the data", None)
    account = Account()
    recipe, found = resolved(recipe)
    split = samples_of(recipe, account)
    if origins:
        wanted = [sample for sample in (*split.train, *split.eval) if sample.origin in origins]
        if not wanted:
            raise DataError(f"no sample is made of {', '.join(origins)}")
        split, samples = DataSplit(wanted, [], []), len(wanted)
    split = DataSplit(split.train, split.eval, [*found, *split.notes])
    progress.finish()
    if recipe.task == "image-classification":
        inspection = inspect_images(split, samples)
        return replace(inspection, fields=account.table())
    tokenizer = tokenizer_of(recipe.model, progress)
    progress.start("Tokenising", None)
    inspectors = {
        "chat": partial(inspect_data, account=account),
        "language-modeling": inspect_documents,
        "token-classification": inspect_tagged,
    }
    looked = inspectors.get(recipe.task, inspect_texts)
    inspection = looked(tokenizer, recipe.data, split, samples)
    inspection = replace(inspection, fields=account.table(), refused=account.refusal())
    progress.finish()
    return inspection


def samples_of(recipe: Recipe, account: Account) -> DataSplit:
    """Return the samples that training would read; unreadable rows are counted, not refused."""
    from etude.tuning.data.labelled import load_labelled
    from etude.tuning.data.readers import reader_of
    from etude.tuning.data.references import for_training
    from etude.tuning.data.samples import load_samples
    from etude.tuning.data.schema import DataSplit
    from etude.tuning.tasks.image_classification import read_images
    from etude.tuning.tasks.registry import task_named

    spec, seed = recipe.data, recipe.train.seed
    if recipe.task == "language-modeling":
        return task_named(recipe.task).read(recipe)
    if recipe.task == "image-classification":
        return read_images(spec, seed, account)
    if recipe.task == "text-classification":
        return load_labelled(spec, seed, account=account, refuse=False)
    split = load_samples(spec, seed, reader_of(recipe.task), account=account, refuse=False)
    if recipe.task == "chat":
        train, notes = for_training(split.train, spec, seed)
        return DataSplit(train, split.eval, [*split.notes, *notes])
    return split


def tokenizer_of(model: ModelSpec, progress: Progress) -> Any:
    """Return a model's tokenizer, fetching the model first if it is not on this machine.

    Args:
        model: the recipe's model, with the tokens that it adds.
        progress: reports fetching.

    Raises:
        ModelError: the model is unknown, or cannot be fetched or read.
    """
    from contextlib import closing

    from etude.tuning.models.added_tokens import add_tokens
    from etude.tuning.models.load import open_checkpoint
    from etude.tuning.models.pull import pull
    from etude.tuning.models.sources import resolve

    source = resolve(model.id)
    if source.path is None:
        pull(model.id, progress)
        source = resolve(model.id)
    with closing(open_checkpoint(source)) as checkpoint:
        tokenizer = checkpoint.tokenizer()
    add_tokens(tokenizer, model)
    return tokenizer
