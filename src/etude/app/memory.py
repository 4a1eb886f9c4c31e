"""Estimating the memory of fine-tuning by each method, without weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from etude.core.errors import RecipeError

if TYPE_CHECKING:
    from etude.app.tune import Method
    from etude.tuning.config.recipe import Recipe
    from etude.tuning.memory.estimate import MemoryEstimate
    from etude.tuning.memory.fit import Option


@dataclass(frozen=True)
class MethodEstimate:
    """What one method needs."""

    method: Method
    plan: MemoryEstimate
    change: Option | None
    """If it does not fit: the least costly change with which it does, or which saves most."""


@dataclass(frozen=True)
class MemoryComparison:
    """The methods side by side."""

    recipe: Recipe
    limit: int
    """Bytes to fit into."""
    methods: list[MethodEstimate]

    def as_json(self) -> dict[str, Any]:
        """Return plain data; sizes in bytes."""
        plans: list[dict[str, Any]] = []
        for one in self.methods:
            entry = {**one.plan.as_json(), "fits": one.plan.total <= self.limit}
            if one.change is not None:
                entry["change"] = {
                    "set": one.change.change.split(", "),
                    "total": one.change.plan.total,
                    "fits": one.change.plan.total <= self.limit,
                }
            plans.append(entry)
        return {"model": self.recipe.model.id, "memory": self.limit, "plans": plans}


def estimate_methods(
    model: str | None = None,
    recipe: str | Path | None = None,
    overrides: Sequence[str] = (),
    *,
    method: Method | None = None,
    limit: int | None = None,
) -> MemoryComparison:
    """Estimate the peak memory of one method, or of all that the recipe allows.

    Args:
        model: a model on this machine, a config.json or a well-known name; None is the recipe's.
        recipe: a YAML file, or the name of a shipped recipe; None takes the defaults.
        overrides: `dotted.key=value`, values read as YAML.
        method: estimate this one only.
        limit: bytes to fit into; None is what is available.

    Raises:
        RecipeError: neither model nor recipe is named, or the recipe cannot be run.
        ModelError: the model is not known.
    """
    if model is None and recipe is None:
        raise RecipeError("name a model (etude memory llama-3.1-8b), or a recipe by --recipe")
    return estimate_methods_of(_chosen(model, recipe, overrides), method=method, limit=limit)


def estimate_methods_of(
    chosen: Recipe, *, method: Method | None = None, limit: int | None = None
) -> MemoryComparison:
    """Estimate the peak memory of a recipe by one method, or by all that it allows.

    Args:
        chosen: the recipe.
        method: estimate this one only.
        limit: bytes to fit into; None is what is available.

    Raises:
        ModelError: the model is not known.
    """
    from etude.core.machine import own_memory, this_machine
    from etude.tuning.memory.fit import METHODS, estimate_recipe, first_option
    from etude.tuning.memory.model_configs import open_outline
    from etude.tuning.tasks.registry import task_named

    if limit is None:
        # This process is another than the run's, and has ended by then.
        limit = this_machine().memory_available + own_memory()
    methods: list[Method] = [method] if method else list(METHODS)
    if method is None and chosen.quant.kind == "native":
        methods = ["qlora", "full"]
    estimates: list[MethodEstimate] = []
    head = task_named(chosen.task).expected_head(chosen)
    with open_outline(chosen.model, head) as outline:
        for name in methods:
            own = chosen.with_method(name)
            plan = estimate_recipe(own, outline)
            change = None if plan.total <= limit else first_option(own, limit, outline)
            estimates.append(MethodEstimate(name, plan, change))
    return MemoryComparison(chosen, limit, estimates)


def _chosen(model: str | None, recipe: str | Path | None, overrides: Sequence[str]) -> Recipe:
    from etude.tuning.config.recipe import Recipe, apply_override

    if recipe is not None:
        chosen = Recipe.read(recipe, list(overrides))
    else:
        # No data are looked at; a recipe names some.
        fields: dict[str, Any] = {"data": {"train": "-"}, "eval": {"generate": 0}}
        for override in overrides:
            apply_override(fields, override)
        chosen = Recipe.parse(fields, "options")
    if model is None:
        return chosen
    return chosen.model_copy(update={"model": chosen.model.model_copy(update={"id": model})})
