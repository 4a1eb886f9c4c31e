"""`etude memory`: estimate the memory of fine-tuning before anything is downloaded or run."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from etude.cli.complete import complete_recipe, complete_recipe_key
from etude.cli.root import app

if TYPE_CHECKING:
    from rich.text import Text

    from etude.tuning.memory.estimate import MemoryEstimate


class Way(StrEnum):
    """The methods that are estimated."""

    qlora = "qlora"
    lora = "lora"
    full = "full"


def complete_planned(incomplete: str) -> list[str]:
    """Return the names of models that start with what is typed."""
    from etude.tuning.memory.model_configs import KNOWN

    return [name for name in KNOWN if name.startswith(incomplete)]


def _bytes(text: str) -> int:
    """Read `24GB`, `16 GiB` or a number of bytes."""
    import re

    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kKmMgGtT]?)(i?)[bB]?\s*", text)
    if match is None:
        raise typer.BadParameter(f"{text!r} is no size; write it as in 24GB or 16GiB")
    power = " kmgt".index(match[2].lower() or " ")
    return int(float(match[1]) * (1024 if match[3] else 1000) ** power)


@app.command(
    "memory",
    epilog="Examples:\n\n"
    "`etude memory llama-3.1-8b`\n\n"
    "`etude memory smollm2-135m --recipe docstrings`\n\n"
    "`etude memory path/to/config.json --method qlora --memory 24GB "
    "--set train.gradient_checkpointing=true`",
)
def estimate(
    model: Annotated[
        str | None,
        typer.Argument(
            help="A model on this machine, a config.json, or a well-known name such as "
            "`llama-3.1-8b`. Default: the recipe's model.",
            autocompletion=complete_planned,
            show_default=False,
        ),
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(
            help="The recipe to estimate: a YAML file, or the name of a shipped one.",
            autocompletion=complete_recipe,
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change one key, as in `train.micro_tokens=2048`. May be repeated.",
            autocompletion=complete_recipe_key,
        ),
    ] = None,
    method: Annotated[
        Way | None, typer.Option(help="Estimate one method. Default: all three.")
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(help="The memory to fit into, as in `24GB`. Default: what is available."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Estimate the peak memory of full fine-tuning, LoRA and QLoRA, part by part.

    No weights are read or downloaded: the model is built from its configuration without data, and
    one training step is traced through it. The estimate is for a CPU. On a GPU the parts are the
    same except process and allocator; estimates for a GPU have not been measured.
    """
    from rich.console import Console

    from etude.core.errors import RecipeError
    from etude.core.machine import this_machine
    from etude.tuning.config.recipe import Recipe
    from etude.tuning.memory.fit import METHODS, estimate_recipe, first_option
    from etude.tuning.memory.model_configs import open_outline
    from etude.tuning.tasks.registry import task_named

    if model is None and recipe is None:
        raise RecipeError("name a model (etude memory llama-3.1-8b), or a recipe by --recipe")
    chosen = _chosen(model, recipe, overrides or [])
    limit = this_machine().memory_available if memory is None else _bytes(memory)
    ways = [method.value] if method else list(METHODS)
    if method is None and chosen.quant.kind == "native":
        ways = ["qlora", "full"]
    recipes: dict[str, Recipe] = {way: chosen.with_method(way) for way in ways}  # pyright: ignore[reportArgumentType]
    with open_outline(chosen.model.id, task_named(chosen.task).expected_head(chosen)) as outline:
        plans = {way: estimate_recipe(own, outline) for way, own in recipes.items()}
        first = {
            way: None if own.total <= limit else first_option(recipes[way], limit, outline)
            for way, own in plans.items()
        }
    if as_json:
        content: dict[str, Any] = {"model": chosen.model.id, "memory": limit, "plans": []}
        for way, own in plans.items():
            best = first[way]
            entry = {**own.as_json(), "fits": own.total <= limit}
            if best is not None:
                entry["change"] = {
                    "set": best.change.split(", "),
                    "total": best.plan.total,
                    "fits": best.plan.total <= limit,
                }
            content["plans"].append(entry)
        typer.echo(json.dumps(content, indent=2))
        return
    console = Console(highlight=False)
    _show(console, chosen, plans, limit)
    for way, best in first.items():
        if best is None:
            continue
        from etude.core import units as q

        enough = "and fits" if best.plan.total <= limit else "which is still too much"
        sets = " ".join(f"--set {change}" for change in best.change.split(", "))
        console.print(
            f"{q.METHODS[way]}: change first {sets}: {q.size(best.plan.total)}, {enough} "
            f"({best.cost})",
            markup=False,
            soft_wrap=True,
        )


def _chosen(model: str | None, recipe: Path | None, overrides: list[str]) -> Any:
    from etude.tuning.config.recipe import Recipe, apply_override

    if recipe is not None:
        chosen = Recipe.read(recipe, overrides)
    else:
        # No data are looked at; a recipe names some.
        fields: dict[str, Any] = {"data": {"train": "-"}, "eval": {"generate": 0}}
        for override in overrides:
            apply_override(fields, override)
        chosen = Recipe.parse(fields, "options")
    if model is None:
        return chosen
    return chosen.model_copy(update={"model": chosen.model.model_copy(update={"id": model})})


_COLORS = {
    "process": "grey50",
    "weights": "blue",
    "gradients": "magenta",
    "optimizer": "red",
    "activations": "green",
    "logits": "yellow",
    "workspace": "cyan",
    "allocator": "grey37",
}


def _show(console: Any, recipe: Any, plans: dict[str, MemoryEstimate], limit: int) -> None:
    from rich.table import Table

    from etude.core import units as q
    from etude.tuning.memory.estimate import PARTS

    any_plan = next(iter(plans.values()))
    train, data = recipe.train, recipe.data
    options = [
        f"{q.number(train.micro_tokens)} tokens a pass",
        f"samples up to {q.number(data.max_length)}",
        f"rank {recipe.adapter.rank}",
        train.optimizer,
        *(["checkpointing"] if train.gradient_checkpointing else []),
        *([] if data.packing else ["no packing"]),
    ]
    console.print(
        f"{recipe.model.id}: {q.short_number(any_plan.parameters)} parameters; "
        f"{', '.join(options)}; {q.size(limit)} at hand",
        markup=False,
        soft_wrap=True,
    )
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("")
    for way in plans:
        table.add_column(q.METHODS[way], justify="right")
    for part in PARTS:
        row: list[str] = []
        for own in plans.values():
            largest = own.parts[part] == max(own.parts.values())
            size = q.size(own.parts[part])
            row.append(f"[bold]{size}[/bold]" if largest else size)
        table.add_row(f"[{_COLORS[part]}]■[/] {part}", *row)
    table.add_row("[bold]peak[/bold]", *(f"[bold]{q.size(p.total)}[/bold]" for p in plans.values()))
    fits = ["fits" if p.total <= limit else "does not fit" for p in plans.values()]
    table.add_row("", *fits)
    console.print(table)
    widest = max(limit, *(own.total for own in plans.values()))
    for way, own in plans.items():
        console.print(_bar(q.METHODS[way], own, widest, limit))
    for way, own in plans.items():
        for note in own.notes:
            console.print(f"{q.METHODS[way]}: {note}", markup=False)


def _bar(name: str, own: MemoryEstimate, widest: int, limit: int) -> Text:
    """Draw the parts side by side, and where the memory at hand ends."""
    from rich.text import Text

    columns = 60
    line = Text(f"{name:>17} ")
    drawn = sofar = 0
    for part, size in own.parts.items():
        sofar += size
        until = round(columns * sofar / widest)
        line.append("█" * max(0, until - drawn), style=_COLORS[part])
        drawn = max(drawn, until)
    end = round(columns * limit / widest)
    if drawn < end:
        line.append(" " * (end - drawn))
    line.append("▏" if drawn <= end else "")
    return line
