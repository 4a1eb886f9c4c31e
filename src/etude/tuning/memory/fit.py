"""What fits in the memory at hand, and which one option to change where it does not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from etude.core.errors import EtudeError, InsufficientMemoryError, ModelError
from etude.core.machine import own_memory
from etude.tuning.config.recipe import Recipe, apply_override
from etude.tuning.config.sections.train import NOT_TAKEN
from etude.tuning.memory.estimate import PROCESS, MemoryEstimate, estimate_memory
from etude.tuning.memory.model_configs import ModelOutline, held_on_disk
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


Method = Literal["qlora", "lora", "full"]

METHODS: tuple[Method, ...] = ("qlora", "lora", "full")
"""Ways to fine-tune that are estimated side by side, that which takes least first."""


def estimate_recipe(recipe: Recipe, outline: ModelOutline) -> MemoryEstimate:
    """Predict the peak memory of a recipe's run on a processor.

    Args:
        recipe: of the run.
        outline: of its model.

    Raises:
        ModelError: the memory of such a model cannot be estimated.
        AdapterError: the recipe's adapter does not fit the model.
    """
    return estimate_memory(
        outline.config,
        recipe,
        Placement.of(recipe).compute_dtype,
        held_on_disk(recipe, outline),
        outline.head,
        process=PROCESS,
    )


def estimate_other_methods(recipe: Recipe, outline: ModelOutline) -> list[MemoryEstimate]:
    """Predict what the recipe would take by each method that is not its own.

    A method that the recipe's adapter or model does not allow is left out.
    """
    found: list[MemoryEstimate] = []
    for method in METHODS:
        if method != recipe.method:
            with suppress(EtudeError):
                found.append(estimate_recipe(recipe.with_method(method), outline))
    return found


def options(recipe: Recipe, outline: ModelOutline) -> list[Option]:
    """Return what each single change would come to, the least costly change first.

    Costs are those of the run: the same result more slowly, before another result.
    """
    found: list[Option] = []
    for changes, cost in _changes(recipe):
        fields = recipe.model_dump(mode="json")
        for change in changes:
            apply_override(fields, change)
        try:
            changed = Recipe.parse(fields)
            found.append(Option(", ".join(changes), cost, estimate_recipe(changed, outline)))
        except ModelError:
            continue
    return found


def first_option(recipe: Recipe, memory: int, outline: ModelOutline) -> Option | None:
    """Return the least costly change with which the run fits; else that which saves most."""
    tried = options(recipe, outline)
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


def memory_at_hand(placement: Placement, plan: MemoryEstimate) -> int:
    """Return the bytes that the run of this process can have, those that it holds included.

    The plan counts the whole process. What it holds already is no longer available to anybody, so
    it is added to what is; a GPU holds none of its libraries.

    Args:
        placement: where the run computes.
        plan: its estimate.
    """
    process = plan.parts["process"]
    held = process if placement.device.type == "cuda" else min(process, own_memory())
    return placement.memory_available() + held


def require_fit(plan: MemoryEstimate, recipe: Recipe, memory: int, outline: ModelOutline) -> None:
    """Refuse a run whose plan is beyond the memory there is.

    Args:
        plan: of the run.
        recipe: of the run.
        memory: see `memory_at_hand`.
        outline: of its model.

    Raises:
        MemoryPlanError: saying what it would take, and which one option to change.
    """
    if plan.total <= TOLERANCE * memory:
        return
    best = first_option(recipe, memory, outline)
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
