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


def plan_resumption(run: str, base: Path = Path("runs")) -> PlannedRun:
    """Return a stopped or killed run, to go on with its own recipe.

    Args:
        run: `latest`, a name, or a path.
        base: folder that runs are kept in.

    Raises:
        RunError: there is no such run.
        RecipeError: it is finished.
    """
    from etude.tuning.config.recipe import Recipe
    from etude.tuning.runs.folder import find_run

    folder = find_run(run, base)
    if folder.state == "finished":
        raise RecipeError(f"{folder.path} is finished; there is nothing to resume")
    return PlannedRun(Recipe.read_run(folder.recipe), folder)


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
