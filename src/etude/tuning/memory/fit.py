"""What fits in the memory at hand, and which one option to change where it does not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from etude.core.errors import InsufficientMemoryError, ModelError
from etude.tuning.config.recipe import Recipe, apply_override
from etude.tuning.config.sections.train import NOT_TAKEN
from etude.tuning.memory.estimate import PROCESS, MemoryEstimate, estimate_memory
from etude.tuning.memory.model_configs import config_of, held_on_disk
from etude.tuning.placement import Placement

TOLERANCE = 1.1
"""A prediction may be off by a tenth: only what is further above the memory at hand is refused."""


@dataclass(frozen=True)
class Option:
    """One change of a recipe, and what it would come to."""

    change: str
    """As `--set` takes it."""

    cost: str
    """What it costs beside memory."""

    plan: MemoryEstimate


def estimate_recipe(recipe: Recipe, config: Any | None = None) -> MemoryEstimate:
    """Predict the peak memory of a recipe's run on a processor.

    Args:
        recipe: of the run.
        config: of its model, where it was read already.

    Raises:
        ModelError: the model is unknown, or cannot be planned for.
    """
    config = config_of(recipe.model.id) if config is None else config
    return estimate_memory(
        config,
        recipe,
        Placement.of(recipe).compute_dtype,
        held_on_disk(recipe),
        process=PROCESS,
    )


def options(recipe: Recipe, config: Any | None = None) -> list[Option]:
    """Return what each single change would come to, the least costly change first.

    Costs are those of the run: the same result more slowly, before another result.
    """
    config = config_of(recipe.model.id) if config is None else config
    found: list[Option] = []
    for changes, cost in _changes(recipe):
        fields = recipe.model_dump(mode="json")
        for change in changes:
            apply_override(fields, change)
        try:
            changed = Recipe.parse(fields)
            found.append(Option(", ".join(changes), cost, estimate_recipe(changed, config)))
        except ModelError:
            continue
    return found


def first_option(recipe: Recipe, memory: int, config: Any | None = None) -> Option | None:
    """Return the least costly change with which the run fits; else that which saves most."""
    tried = options(recipe, config)
    fitting = [option for option in tried if option.plan.total <= memory]
    if fitting:
        return fitting[0]
    return min(tried, key=lambda option: option.plan.total, default=None)


def _changes(recipe: Recipe) -> Iterator[tuple[list[str], str]]:
    """Yield single changes, those that leave the result as it is first."""
    train = recipe.train
    if train.micro_tokens > recipe.data.max_length:
        tokens = recipe.data.max_length
        yield [f"train.micro_tokens={tokens}"], "the same steps, a little slower"
    if not train.gradient_checkpointing:
        yield ["train.gradient_checkpointing=true"], "the same result, about a third slower"
    if not train.paged and "paged" not in NOT_TAKEN.get(train.optimizer, {}):
        yield ["train.paged=true"], "the same result, slower by writing to disk"
    if recipe.method == "lora":
        yield ["quant.kind=nf4"], "a base rounded to 4 bits"
    if recipe.method == "full":
        if train.optimizer == "adamw":
            yield ["train.optimizer=adamw8bit"], "moments in 8 bits"
        changes = ["adapter.kind=lora", f"train.lr={10 * train.lr:g}"]
        yield changes, "an adapter instead of all weights"
        yield [*changes, "quant.kind=nf4"], "an adapter, and a base rounded to 4 bits"
    if recipe.data.max_length > 256:
        length = max(256, recipe.data.max_length // 2)
        tokens = min(train.micro_tokens, length)
        yield (
            [f"data.max_length={length}", f"train.micro_tokens={tokens}"],
            "longer samples are left out",
        )


def require_fit(plan: MemoryEstimate, recipe: Recipe, memory: int) -> None:
    """Refuse a run whose plan is beyond the memory there is.

    Raises:
        MemoryPlanError: saying what it would take, and which one option to change.
    """
    if plan.total <= TOLERANCE * memory:
        return
    best = first_option(recipe, memory)
    advice = ""
    if best is not None:
        enough = "" if best.plan.total <= memory else ", which is not enough by itself"
        change = " ".join(f"--set {part}" for part in best.change.split(", "))
        advice = f"; {change} would take {_size(best.plan.total)} ({best.cost}){enough}"
    largest = max(plan.parts, key=lambda part: plan.parts[part])
    raise InsufficientMemoryError(
        f"this run would take about {_size(plan.total)} of memory, most of it {largest} "
        f"({_size(plan.parts[largest])}), and {_size(memory)} are available{advice}; "
        "to start it all the same: --ignore-memory"
    )


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB"
