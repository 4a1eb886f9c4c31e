"""Starting and resuming runs: which recipe, changed how, in which folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from etude.core.errors import RecipeError

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


def plan_run(
    recipe: str | Path,
    overrides: Sequence[str] = (),
    *,
    data: str | None = None,
    method: Method | None = None,
) -> PlannedRun:
    """Return a new run by a recipe.

    Args:
        recipe: a YAML file, or the name of a recipe that Etude ships with.
        overrides: `dotted.key=value`, values read as YAML.
        data: what to train on instead: a file or, for docstrings, a package or folder.
        method: train by this method instead of the recipe's.

    Raises:
        RecipeError: the recipe is missing or cannot be run.
    """
    from etude.tuning.config.recipe import Recipe

    chosen = Recipe.read(recipe, list(overrides), data=data)
    return PlannedRun(chosen.with_method(method) if method else chosen)


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
    return TunedRun(folder, finished, compare_methods(run, plan.recipe, quiet=quiet))
