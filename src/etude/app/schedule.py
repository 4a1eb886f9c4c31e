"""A recipe's learning rate, step by step, before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from etude.core.errors import RecipeError

if TYPE_CHECKING:
    from etude.tuning.config.recipe import Recipe


@dataclass(frozen=True)
class RecipeSchedule:
    """The learning rates of a run."""

    scheduler: str
    """`train.lr_scheduler`."""
    warmup: int
    """Steps of warm-up."""
    rates: list[float]
    """Learning rate of every optimiser step."""
    note: str
    """Where the number of steps is from, and what the drawing assumes."""

    def as_json(self) -> dict[str, Any]:
        """Return plain data."""
        return dict(vars(self))

    def svg(self) -> str:
        """Return the schedule as an SVG file."""
        from etude.tuning.report.axis import linear_axis
        from etude.tuning.report.chart import decimal_tick, exponent_tick
        from etude.tuning.report.svg import Curve, svg_chart

        steps = range(1, len(self.rates) + 1)
        return svg_chart(
            f"Learning rate: {self.scheduler}",
            [Curve("learning rate", steps, self.rates)],
            (
                linear_axis([0, len(steps)], decimal_tick, tight=True, count=8),
                linear_axis(self.rates, exponent_tick, from_zero=True),
            ),
            ("optimiser step", "learning rate"),
        )


def recipe_schedule(
    recipe: str | Path,
    overrides: Sequence[str] = (),
    *,
    data: str | None = None,
    steps: int | None = None,
) -> RecipeSchedule:
    """Return the learning rates that a run by this recipe would have.

    Args:
        recipe: a YAML file, or the name of a shipped recipe.
        overrides: `dotted.key=value`, values read as YAML.
        data: training data instead of the recipe's.
        steps: optimiser steps of the run; None: `train.max_steps`, or what the data come to.

    Raises:
        RecipeError: the recipe cannot be run, the schedule does not fit into the run, or the number
            of steps is known only once a model has encoded the data.
        DataError: the data cannot be read.
    """
    from etude.tuning.config.recipe import Recipe
    from etude.tuning.optim.schedules import require_schedule_fits, warmup_steps

    chosen = Recipe.read(recipe, list(overrides), data=data)
    if steps is not None:
        total, note = steps, f"{steps:,} steps, as given"
    elif chosen.train.max_steps is not None:
        total = chosen.train.max_steps
        note = f"{total:,} steps by train.max_steps; fewer if train.epochs ends before"
    else:
        total, note = _steps_of_data(chosen)
    require_schedule_fits(chosen.train, total)
    if chosen.train.lr_scheduler == "reduce_lr_on_plateau":
        note += "; as if no evaluation were better than the first"
    if chosen.train.max_minutes is not None:
        note += f"; shortened where {chosen.train.max_minutes:g} minutes do not suffice"
    return RecipeSchedule(
        chosen.train.lr_scheduler,
        warmup_steps(chosen.train, total),
        _rates(chosen, total),
        note,
    )


def _rates(recipe: Recipe, total: int) -> list[float]:
    """Return the rate of every step; at a plateau, of evaluations that never improve."""
    from etude.tuning.optim.schedules import Plateau, learning_rate, warmup_steps

    spec, plateau = recipe.train, Plateau()
    warmup, rates = warmup_steps(spec, total), list[float]()
    for step in range(total):
        rates.append(learning_rate(spec, step, total, plateau.scale))
        due = spec.eval_every is not None and (step + 1) % spec.eval_every == 0
        if spec.lr_scheduler == "reduce_lr_on_plateau" and due and step + 1 >= warmup:
            plateau.update(spec, 1.0, higher_is_better=False)
    return rates


def _steps_of_data(recipe: Recipe) -> tuple[int, str]:
    """Read the data and return the steps that they come to, and how."""
    from etude.tuning.tasks.detect import resolved
    from etude.tuning.tasks.registry import task_named
    from etude.tuning.training.step import planned_steps

    recipe.require_data()
    recipe, _ = resolved(recipe)
    if recipe.task in ("language-modeling", "reranking"):
        raise RecipeError(
            f"task: {recipe.task}: the number of steps is known only once the model's tokenizer "
            "has divided the data; name it by --steps"
        )
    samples = len(task_named(recipe.task).read(recipe).train)
    steps = planned_steps(recipe.train, samples)
    return steps, (
        f"{steps:,} steps: {samples:,} training samples, {recipe.train.batch_samples} a step, "
        f"{recipe.train.epochs:g} epochs; samples that do not fit into data.max_length are dropped"
    )
