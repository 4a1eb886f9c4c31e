"""Starting and resuming runs: which recipe, changed how, in which folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from etude.core.errors import RecipeError, did_you_mean

if TYPE_CHECKING:
    from etude.core.progress import Progress
    from etude.tuning.callbacks import Callback
    from etude.tuning.config.recipe import Recipe
    from etude.tuning.report.summary import RunResult
    from etude.tuning.runs.folder import RunFolder

Method = Literal["qlora", "lora", "full"]


@dataclass(frozen=True)
class PlannedRun:
    """A run that can be started."""

    recipe: Recipe
    """Resolved: overrides, data and method applied."""
    resume: RunFolder | None = None
    """The stopped or killed run to go on with; None for a new one."""
    notes: tuple[str, ...] = ()
    """What was decided from the data, for the user."""
    extend: bool = False
    """Whether the run to go on with is to last longer than it was planned."""


@dataclass(frozen=True)
class TunedRun:
    """A run that ended."""

    folder: RunFolder
    finished: bool
    """False if it was stopped and can be resumed."""
    comparison: list[RunResult] | None = None
    """One row a method, if methods were compared."""


@dataclass(frozen=True)
class DataOptions:
    """Data named on the command line; None keeps the recipe's."""

    train: str | None = None
    """A file, or for docstrings a package or folder."""
    held_out: str | None = None
    """A file to evaluate on."""
    text_column: str | None = None
    label_column: str | None = None
    image_column: str | None = None
    """Column of the paths of images."""

    def overrides(self) -> list[str]:
        """Return them, without the training data, as `dotted.key=value`."""
        keys = {
            "eval": self.held_out,
            "text": self.text_column,
            "label": self.label_column,
            "image": self.image_column,
        }
        return [
            f"data.{key}={json.dumps(value)}" for key, value in keys.items() if value is not None
        ]


def plan_run(
    recipe: str | Path | None,
    overrides: Sequence[str] = (),
    *,
    task: str | None = None,
    model: str | None = None,
    data: DataOptions | None = None,
    method: Method | None = None,
) -> PlannedRun:
    """Return a new run.

    Args:
        recipe: a YAML file, or the name of a recipe that Etude ships with. None: the shipped
            recipe of the task.
        overrides: `dotted.key=value`, values read as YAML.
        task: a task, or `auto` to read it from the data; None: the recipe's, or `auto` without
            a recipe.
        model: the base model instead of the recipe's.
        data: what to train and evaluate on instead.
        method: train by this method instead of the recipe's.

    Raises:
        RecipeError: the recipe is missing or cannot be run.
        DataError: the task or the columns cannot be read from the data.
    """
    from etude.tuning.config.recipe import Recipe
    from etude.tuning.tasks.detect import resolved

    data = data or DataOptions()
    file, changes, notes = recipe_and_changes(recipe, overrides, task=task, model=model, data=data)
    chosen = Recipe.read(file, changes, data=data.train)
    chosen.require_data()
    chosen, found = resolved(chosen)
    return PlannedRun(
        chosen.with_method(method) if method else chosen,
        notes=tuple(dict.fromkeys([*notes, *found])),
    )


def recipe_and_changes(
    recipe: str | Path | None,
    overrides: Sequence[str],
    *,
    task: str | None,
    model: str | None,
    data: DataOptions,
) -> tuple[str | Path, list[str], list[str]]:
    """Return the recipe to read, what to change in it, and what was decided, for the user.

    Args:
        recipe: a YAML file or a name; None: the shipped recipe of the task.
        overrides: `dotted.key=value`, which come after the other options.
        task: see `plan_run`.
        model: the base model instead of the recipe's.
        data: what to train and evaluate on instead.

    Raises:
        RecipeError: there is no such task, or nothing to read it from.
        DataError: the task cannot be read from the data.
    """
    from etude.tuning.config.shipped import shipped_recipes

    changes = [*data.overrides(), *overrides]
    if model is not None:
        changes.insert(0, f"model.id={json.dumps(model)}")
    notes: list[str] = []
    if recipe is None:
        if task in (None, "auto"):
            task, notes = _task_of(data, overrides)
        recipes = shipped_recipes()
        if task not in recipes:
            known = ", ".join(name for name in recipes if name in task_names())
            raise RecipeError(f"no task {task!r}{did_you_mean(str(task), recipes)}; tasks: {known}")
        recipe = recipes[task]
    elif task is not None:
        changes.append(f"task={task}")
    return recipe, changes, notes


def task_names() -> list[str]:
    """Return the names of all tasks."""
    from etude.tuning.config.recipe import Recipe

    names: tuple[str, ...] = get_args(Recipe.model_fields["task"].annotation)
    return [name for name in names if name != "auto"]


def _task_of(data: DataOptions, overrides: Sequence[str]) -> tuple[str, list[str]]:
    """Read the task from the data."""
    from etude.tuning.config.recipe import Recipe, apply_override
    from etude.tuning.tasks.detect import resolved

    if data.train is None:
        raise RecipeError(
            "name a recipe (etude tune docstrings), a task and data (etude tune --task "
            "text-classification --data reviews.csv), or a run to resume (--resume RUN)"
        )
    fields: dict[str, Any] = {"data": {"train": data.train}}
    for override in [*data.overrides(), *overrides, "task=auto"]:
        apply_override(fields, override)
    found, notes = resolved(Recipe.parse(fields, "options"))
    return found.task, notes


LENGTH = ("train.epochs", "train.max_steps", "train.max_minutes", "train.patience")
"""Keys that may change when a run goes on: how long it lasts, and nothing that it computes."""


def plan_resumption(
    run: str, base: Path = Path("runs"), overrides: Sequence[str] = ()
) -> PlannedRun:
    """Return a stopped or killed run, to go on with its own recipe.

    Args:
        run: `latest`, a name, or a path.
        base: folder that runs are kept in.
        overrides: `dotted.key=value` of the keys in `LENGTH`: the run, which may be finished, is
            planned anew to last that long.

    Raises:
        RunError: there is no such run.
        RecipeError: it is finished and not to last longer, or another key is to change.
    """
    from etude.tuning.config.recipe import Recipe, apply_override
    from etude.tuning.runs.folder import find_run

    folder = find_run(run, base)
    if folder.is_search:
        raise RecipeError(f"{folder.path} is a search; go on with: etude search --resume {run}")
    if folder.is_cross_validation:
        raise RecipeError(
            f"{folder.path} is a cross-validation; go on with: etude tune --resume {run}, without "
            "other options"
        )
    other = [one for one in overrides if one.partition("=")[0].strip() not in LENGTH]
    if other:
        raise RecipeError(
            f"--resume goes on with the run's own recipe, of which {', '.join(LENGTH)} may be "
            f"changed; not {other[0]}"
        )
    recipe = Recipe.read_run(folder.recipe)
    if not overrides:
        if folder.state == "finished":
            raise RecipeError(
                f"{folder.path} is finished; there is nothing to resume. To train it for longer, "
                f"add --set train.epochs={2 * recipe.train.epochs:g}"
            )
        return PlannedRun(recipe, folder)
    if recipe.adapter.kind == "adalora":
        raise RecipeError(
            f"{folder.path}: AdaLoRA divides its ranks over the planned steps, so a run of it "
            "cannot be extended"
        )
    fields = recipe.model_dump(mode="json")
    for override in overrides:
        apply_override(fields, override)
    return PlannedRun(Recipe.parse(fields, str(folder.recipe)), folder, extend=True)


def start(
    plan: PlannedRun,
    *,
    base: Path = Path("runs"),
    callbacks: Sequence[Callback] = (),
    progress: Progress | None = None,
    ignore_memory: bool = False,
    compare: bool = False,
    quiet: bool = True,
) -> TunedRun:
    """Start or resume a run, and wait for its end.

    Args:
        plan: from `plan_run` or `plan_resumption`.
        base: folder that the run's folder is made in.
        callbacks: called at each stage of training.
        progress: told of every stage that may take over two seconds.
        ignore_memory: begin even if the memory estimate says that the run cannot fit.
        compare: run the other methods on the same data afterwards.
        quiet: show nothing of those other runs on the terminal.

    Raises:
        EtudeError: something is wrong with the recipe, the model, the data or the machine; what
            the run had saved is still valid.
    """
    from etude.tuning.compare import compare_methods
    from etude.tuning.config.recipe import Recipe
    from etude.tuning.pipeline import tune
    from etude.tuning.runs.folder import RunFolder

    run = tune(
        plan.recipe,
        base=base,
        resume=plan.resume,
        extend=plan.extend,
        callbacks=callbacks,
        progress=progress,
        ignore_memory=ignore_memory,
    )
    folder, finished = RunFolder.open(run.folder), run.state == "finished"
    if not finished or not compare:
        return TunedRun(folder, finished)
    # The run's own: standard input is in its folder, and cannot be read again.
    recipe = Recipe.read_run(folder.recipe)
    return TunedRun(folder, finished, compare_methods(run, recipe, quiet=quiet))
