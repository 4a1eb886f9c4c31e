"""Finding a learning rate for a recipe: the range test on the run's own model and data."""

from __future__ import annotations

import tempfile
from pathlib import Path

from etude.core.machine import release_freed_memory
from etude.core.progress import Progress
from etude.core.runtimes import bound_products
from etude.tuning.adapters import registry
from etude.tuning.adapters.multi_adapter import adapters_named
from etude.tuning.callbacks import Callback, CallbackList
from etude.tuning.config.recipe import Recipe
from etude.tuning.placement import Placement
from etude.tuning.preparation import prepare
from etude.tuning.runs.folder import RunFolder
from etude.tuning.settle import settled, with_runs_found
from etude.tuning.tasks.detect import resolved
from etude.tuning.training.interrupt import stop_request
from etude.tuning.training.lr_range import RangeTest, range_test
from etude.tuning.training.step import Abandoned, OptimizerSteps


def find_learning_rate(
    recipe: Recipe,
    *,
    low: float,
    high: float,
    steps: int,
    base: Path,
    callbacks: Callback,
    progress: Progress,
    ignore_memory: bool = False,
) -> RangeTest:
    """Take a range test of a recipe; nothing of it stays on disk, and its weights are discarded.

    Args:
        recipe: the recipe; its schedule and number of steps are not used.
        low: first learning rate.
        high: last learning rate.
        steps: optimiser steps at most.
        base: folder that runs are kept in, for adapter.start_from.
        callbacks: told of what the user should know.
        progress: reports every stage.
        ignore_memory: begin even if the memory estimate says that it cannot fit.

    Raises:
        KeyboardInterrupt: Ctrl-C or SIGTERM.
        EtudeError: the recipe, the model, the data or the machine is unsuitable.
    """
    recipe.require_data()
    bound_products()
    # As many steps as the test has, whatever the recipe's schedule needs.
    train = recipe.train.model_copy(
        update={"max_steps": None, "lr_scheduler": "constant", "warmup_steps": None}
    )
    recipe = with_runs_found(recipe.model_copy(update={"train": train}), base)
    with (
        tempfile.TemporaryDirectory(prefix="etude-lr-find-") as aside,
        RunFolder.create("lr-find", aside) as folder,
    ):
        recipe, notes = resolved(settled(recipe, folder.path))
        for note in notes:
            callbacks.on_message(note)
        placement = Placement.of(recipe)
        ready = prepare(recipe, placement, folder, callbacks, progress, ignore_memory=ignore_memory)
        own: list[Callback] = []
        if recipe.adapter.kind != "full":
            kind = registry.kind(recipe.adapter.kind)
            own = kind.callbacks(adapters_named(ready.loaded.model), recipe.adapter)
        acting = CallbackList([*own, callbacks])
        taken = OptimizerSteps(
            ready.loaded.model,
            ready.parameters,
            ready.data.train.samples,
            recipe,
            ready.objective,
            layout=ready.layout,
            placement=placement,
            callbacks=acting,
            paged_folder=folder.path,
        )
        release_freed_memory()
        for callback in own:
            callback.on_train_begin(steps, 0)
        progress.start("Raising the learning rate", steps, "steps")
        try:
            with stop_request() as stop:
                return range_test(
                    taken,
                    low=low,
                    high=high,
                    count=steps,
                    stop=stop,
                    on_step=lambda _: progress.advance(1),
                )
        except Abandoned:
            raise KeyboardInterrupt from None
        finally:
            progress.finish()
