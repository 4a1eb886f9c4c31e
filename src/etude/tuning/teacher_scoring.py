"""Storing a teacher's scores in a process of its own, so that no run holds the teacher in memory.

The stages are those of a run (`preparation.py`) up to its objective, which stores what is missing.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from etude.core.errors import RecipeError
from etude.core.progress import Progress
from etude.core.runtimes import bound_products
from etude.tuning.callbacks import Callback
from etude.tuning.config.recipe import Recipe
from etude.tuning.data.score_store import ScoreStore
from etude.tuning.placement import Placement
from etude.tuning.preparation import prepare
from etude.tuning.runs.folder import RunFolder
from etude.tuning.settle import settled, with_runs_found
from etude.tuning.tasks.detect import resolved


def store_teacher_scores(
    recipe: Recipe,
    *,
    base: Path,
    callbacks: Callback,
    progress: Progress,
    ignore_memory: bool = False,
) -> ScoreStore:
    """Store the scores of a recipe's training samples, as far as they are not there.

    Args:
        recipe: the recipe, with `objective.teacher_scores`.
        base: folder that runs are kept in, for the teacher.
        callbacks: told of what the user should know.
        progress: reports every stage.
        ignore_memory: begin even if the memory estimate says that it cannot fit.

    Raises:
        EtudeError: the recipe, the model, the data or the machine is unsuitable; the folder has
            scores of something else, or cannot be written.
    """
    recipe.require_data()
    if recipe.objective.teacher_scores is None:
        raise RecipeError(
            "objective.teacher_scores names no folder for the scores; set "
            "--set objective.teacher_scores=FOLDER"
        )
    bound_products()
    recipe = with_runs_found(recipe, base)
    with (
        tempfile.TemporaryDirectory(prefix="etude-teacher-scores-") as aside,
        RunFolder.create("teacher-scores", aside) as folder,
    ):
        recipe, notes = resolved(settled(recipe, folder.path))
        for note in notes:
            callbacks.on_message(note)
        placement = Placement.of(recipe)
        prepare(recipe, placement, folder, callbacks, progress, ignore_memory=ignore_memory)
    assert recipe.objective.teacher_scores is not None
    return ScoreStore(Path(recipe.objective.teacher_scores))
