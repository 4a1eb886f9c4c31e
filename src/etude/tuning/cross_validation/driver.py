"""Runs the folds of a cross-validation, one after the other, in a process of their own.

    runs/reviews-folds-20261130-101010/    the folder, of the form of a run's
        folds.json        into how many folds, and how often
        recipe.yaml       the recipe
        trials/           a run's folder a fold
        samples.jsonl     every sample, as the run predicted it that had not trained on it
        summary.json      each metric: mean, spread, interval
        folds.html        all of it, to look at

What is to be done next follows from the folder: the first fold that is not finished, which goes on
from its last checkpoint. So one that was stopped or killed repeats nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Protocol

from etude.core.errors import RunError
from etude.tuning.config.recipe import Recipe
from etude.tuning.config.sections.data import FoldSpec
from etude.tuning.cross_validation.page import write_folds_report
from etude.tuning.cross_validation.results import (
    Division,
    Fold,
    read_folds,
    run_name,
    run_of,
    spreads,
)
from etude.tuning.runs.folder import RunFolder
from etude.tuning.search.worker import Job, Worker

KEPT = ("task", "method", "model", "objective", "loss_unit", "sample_score")
"""Of a fold's summary, what is the same in all."""


class View(Protocol):
    """Shows a cross-validation while it runs."""

    def on_folds(self, folds: list[Fold]) -> None:
        """Show the folds, of which one has changed."""
        ...

    def on_event(self, repeat: int, number: int, name: str, figures: dict[str, Any]) -> None:
        """Show what a fold's process does."""
        ...


def cross_validate(
    folder: RunFolder,
    recipe: Recipe,
    division: Division,
    view: View,
    stopping: Callable[[], bool],
) -> Literal["finished", "stopped"]:
    """Train the folds that are left.

    Args:
        folder: locked by this process.
        recipe: settled, without a fold.
        division: of the data.
        view: shows it.
        stopping: whether to stop at the next safe point.

    Raises:
        RunError: a fold cannot be trained; the finished ones stay, and it can be resumed.
    """
    base = folder.path / "trials"
    base.mkdir(exist_ok=True)
    worker = Worker(folder.log)
    try:
        view.on_folds(read_folds(folder, division))
        for repeat, number in division.runs:
            run = run_of(base, repeat, number)
            if run is not None and run.state == "finished":
                continue
            if stopping():
                return "stopped"
            fold = FoldSpec(of=division.folds, number=number, repeat=repeat)
            own = Recipe.read_run(run.recipe) if run is not None else fold_recipe(recipe, fold)
            job = Job(own.model_dump(mode="json"), str(base), run.path.name if run else "", (), 1.0)

            def tell(name: str, figures: Any, at: tuple[int, int] = (repeat, number)) -> None:
                view.on_event(*at, name, dict(figures))

            outcome = worker.run(job, tell, stopping)
            if outcome.state == "stopped":
                return "stopped"
            if outcome.state != "finished":
                raise RunError(f"fold {number} of {division.folds}: {outcome.reason}")
            if (run := run_of(base, repeat, number)) is not None:
                run.remove_checkpoints()
            write_folds_report(folder)
            view.on_folds(read_folds(folder, division))
    except KeyboardInterrupt:
        # A second Ctrl-C: what the fold at work has saved stays.
        worker.kill()
        raise
    finally:
        worker.close()
    return "finished"


def fold_recipe(recipe: Recipe, fold: FoldSpec) -> Recipe:
    """Return the recipe of a fold's run."""
    data = recipe.data.model_copy(update={"fold": fold})
    name = run_name(fold.repeat, fold.number)
    return recipe.model_copy(update={"name": name, "data": data})


def conclude(folder: RunFolder, division: Division) -> None:
    """Write summary.json, samples.jsonl and the page of finished folds.

    Raises:
        RunError: a file of a fold is damaged, or one here cannot be written.
    """
    folds = read_folds(folder, division)
    found = spreads(folds)
    first = folds[0].summary
    samples = [
        sample
        for fold in folds
        if fold.repeat == 1 and fold.run is not None
        for sample in fold.run.read_samples()
    ]
    folder.write_lines(folder.samples.name, samples)
    folder.write_json(
        folder.summary.name,
        {
            "name": folder.name,
            **{key: first[key] for key in KEPT if key in first},
            "metrics": [spread.metric.as_json() for spread in found],
            **{spread.metric.name: spread.mean for spread in found},
            **{
                f"{spread.metric.name}_before": spread.before
                for spread in found
                if spread.before is not None
            },
            "standard_errors": {spread.metric.name: spread.error for spread in found},
            "train_seconds": sum(fold.summary["train_seconds"] for fold in folds),
            "cross_validation": {
                "folds": division.folds,
                "repeats": division.repeats,
                "spreads": [spread.as_json() for spread in found],
                "runs": [
                    {
                        "repeat": fold.repeat,
                        "fold": fold.number,
                        "run": fold.run.name if fold.run else None,
                        "trained": fold.trained,
                        "held_out": fold.held_out,
                        **{s.metric.name: fold.summary.get(s.metric.name) for s in found},
                    }
                    for fold in folds
                ],
            },
        },
    )
    write_folds_report(folder)
