"""Cross-validation of a recipe: a run for each fold, in one folder; going on with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from etude.core.errors import RecipeError

if TYPE_CHECKING:
    from etude.tuning.config.recipe import Recipe
    from etude.tuning.cross_validation.driver import View
    from etude.tuning.cross_validation.results import Division
    from etude.tuning.runs.folder import RunFolder


@dataclass(frozen=True)
class PlannedFolds:
    """A cross-validation that can be started."""

    recipe: Recipe
    division: Division
    resume: RunFolder | None = None
    """The one to go on with; None for a new one."""


def plan_folds(recipe: Recipe, folds: int, repeats: int) -> PlannedFolds:
    """Return a new cross-validation.

    Args:
        recipe: of every run.
        folds: parts of the data, each of which is held out once.
        repeats: divisions, each with its own seed.

    Raises:
        RecipeError: the recipe's data cannot be divided.
    """
    from etude.tuning.config.recipe import Recipe
    from etude.tuning.cross_validation.results import Division

    fields = recipe.model_dump(mode="json")
    # As every run will be: what cannot be said with a fold is refused before a folder is made.
    fields["data"]["fold"] = {"of": folds, "number": 1}
    Recipe.parse(fields, "--folds")
    return PlannedFolds(recipe, Division(folds, repeats))


def plan_folds_resumption(
    folder: RunFolder, folds: int | None = None, repeats: int | None = None
) -> PlannedFolds:
    """Return a cross-validation to go on with.

    Args:
        folder: of it.
        folds: must be what it was begun with; None: that.
        repeats: likewise, or more: further divisions are added.

    Raises:
        RecipeError: it was begun otherwise.
        RunError: a file of it is damaged.
    """
    from etude.tuning.config.recipe import Recipe
    from etude.tuning.cross_validation.results import Division

    division = Division.read(folder)
    wanted = Division(folds or division.folds, repeats or division.repeats)
    if wanted.folds != division.folds or wanted.repeats < division.repeats:
        raise RecipeError(
            f"{folder.path} was begun with --folds {division.folds} --repeats {division.repeats}; "
            "only more repeats can be added to it"
        )
    return PlannedFolds(Recipe.read_run(folder.recipe), wanted, folder)


def start(
    plan: PlannedFolds,
    *,
    base: Path = Path("runs"),
    view: View,
    stopping: Callable[[], bool] = lambda: False,
) -> tuple[RunFolder, bool]:
    """Start or go on with a cross-validation, and wait for its end.

    Args:
        plan: from `plan_folds` or `plan_folds_resumption`.
        base: folder in which its folder is made.
        view: shows it.
        stopping: whether it is to stop at the next safe point.

    Returns:
        Its folder, and whether it is finished.

    Raises:
        EtudeError: a fold cannot be trained; what is finished is kept.
    """
    from dataclasses import asdict

    from etude.app.search import note_failure
    from etude.tuning.cross_validation.driver import conclude, cross_validate
    from etude.tuning.cross_validation.page import lede, write_folds_report
    from etude.tuning.cross_validation.results import read_folds, spreads
    from etude.tuning.runs.folder import RunFolder
    from etude.tuning.runs.process import Heartbeat
    from etude.tuning.settle import settled, with_runs_found

    recipe, division = plan.recipe, plan.division
    with plan.resume or RunFolder.create(f"{recipe.name}-folds", base) as folder:
        try:
            if plan.resume is None:
                recipe = settled(with_runs_found(recipe, base), folder.path)
                folder.write_text(folder.recipe.name, recipe.to_yaml())
            folder.write_json(folder.folds.name, asdict(division))
            folder.clear_stop()
            folder.set_state("running")
            with Heartbeat(folder.heartbeat):
                state = cross_validate(folder, recipe, division, view, stopping)
        except BaseException as error:
            note_failure(folder, error, new=plan.resume is None)
            raise
        folds = read_folds(folder, division)
        if state == "finished":
            conclude(folder, division)
            detail = lede(division, spreads(folds)).removesuffix(".")
        else:
            write_folds_report(folder)
            ended = sum(bool(fold.summary) for fold in folds)
            detail = f"{ended} of {len(folds)} folds finished"
        folder.set_state(state, detail)
        return folder, state == "finished"


def write_report(folder: RunFolder) -> None:
    """Write folds.html again.

    Raises:
        RunError: a file is damaged, or the page cannot be written.
    """
    from etude.tuning.cross_validation.page import write_folds_report

    write_folds_report(folder)
