"""What a recipe names, made independent of where a run is resumed: absolute paths, stored input."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from etude.core.errors import RunError
from etude.tuning.config.recipe import Recipe
from etude.tuning.config.sections.data import BM25, DataSpec
from etude.tuning.config.sections.named_files import NamedFile
from etude.tuning.config.sections.objective import SELF
from etude.tuning.data.sources import standard_input
from etude.tuning.models.catalog import CATALOG
from etude.tuning.models.token_lists import listed
from etude.tuning.runs.folder import find_run

ADAPTER_CONFIG = "adapter_config.json"
"""What makes a folder that of an adapter, in PEFT's format."""


def settled(recipe: Recipe, folder: Path) -> Recipe:
    """Return a recipe that means the same in any working directory.

    Paths of data and of the model become absolute; standard input is stored in `folder`/data, and
    added tokens are listed instead of their file.

    Raises:
        DataError: standard input is a terminal or empty, or cannot be stored.
        ModelError: the file of added tokens cannot be read.
    """
    data = recipe.data.model_copy(update={"test": _absolute(recipe.data.test)})
    if data.kind == "files":
        if data.train == standard_input.NAME:
            data = data.model_copy(update={"train": str(standard_input.store(folder / "data"))})
        data = with_paths(data)
    elif data.kind == "hub":
        if isinstance(data.train, str):
            data = data.model_copy(update={"train": _if_there(data.train)})
    else:
        update = {
            name: [_package(entry) for entry in getattr(data, name)]
            for name in ("packages", "eval_packages")
        }
        data = data.model_copy(update=update)
    if data.first_stage not in (BM25, *CATALOG):
        data = data.model_copy(update={"first_stage": _if_there(data.first_stage)})
    model = recipe.model
    if model.id not in CATALOG:
        model = model.model_copy(update={"id": _if_there(model.id)})
    # A file of tokens may be another when the run goes on.
    model = listed(model)
    objective = recipe.objective
    if objective.teacher_scores is not None:
        scores = _path(objective.teacher_scores)
        objective = objective.model_copy(update={"teacher_scores": scores})
    return recipe.model_copy(update={"data": data, "model": model, "objective": objective})


def with_runs_found(recipe: Recipe, base: str | Path) -> Recipe:
    """Return the recipe with the folders of the adapter that it starts from, and of its teacher.

    Before the run's own folder is made, since `latest` is to mean another run.

    Raises:
        RunError: there is no such run, or it has no adapter.
    """
    return _with_adapter_found(_with_teacher_found(recipe, base), base)


def _with_teacher_found(recipe: Recipe, base: str | Path) -> Recipe:
    """Return the recipe with its teacher's folder, if that is a run; else it is a model's name."""
    named = recipe.objective.teacher
    if named is None or named == SELF or named in CATALOG:
        return recipe
    try:
        folder = str(find_run(named, base).path.absolute())
    except RunError:
        if recipe.task in ("text-classification", "token-classification"):
            raise
        folder = _if_there(named)
    spec = recipe.objective.model_copy(update={"teacher": folder})
    return recipe.model_copy(update={"objective": spec})


def _with_adapter_found(recipe: Recipe, base: str | Path) -> Recipe:
    named = recipe.adapter.start_from
    if named is None or recipe.adapter.kind == "full" or (Path(named) / ADAPTER_CONFIG).is_file():
        return recipe
    folder = find_run(named, base).adapter
    if not folder.is_dir():
        raise RunError(f"adapter.start_from: {folder.parent} has no adapter yet")
    spec = recipe.adapter.model_copy(update={"start_from": str(folder)})
    return recipe.model_copy(update={"adapter": spec})


def with_paths(spec: DataSpec) -> DataSpec:
    """Return data in files, all of them by their absolute paths."""
    update = {key: _absolute(getattr(spec, key)) for key in ("train", "eval", "test")}
    return spec.model_copy(update=update)


def _absolute(files: str | list[NamedFile] | None) -> str | list[NamedFile] | None:
    if files is None:
        return None
    if isinstance(files, str):
        return _path(files)
    return [
        file.model_copy(
            update={
                name: _path(value)
                for name in ("path", "prompts", "completions")
                if (value := getattr(file, name)) is not None
            }
        )
        for file in files
    ]


def _path(name: str) -> str:
    return str(Path(name).expanduser().absolute())


def _if_there(name: str) -> str:
    """Return the absolute path of a file or folder here; another name as it is."""
    return _path(name) if Path(name).expanduser().exists() else name


def _package(name: str) -> str:
    """Return the absolute path of a folder or module; the name of an installed package as it is."""
    if name.isidentifier() and find_spec(name) is not None:
        return name
    return _if_there(name)
