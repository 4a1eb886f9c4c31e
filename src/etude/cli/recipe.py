"""`etude recipe`: list shipped recipes, look up keys, check and resolve recipes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from etude.cli.complete import complete_recipe, complete_recipe_key
from etude.cli.output import write_output
from etude.cli.root import app

if TYPE_CHECKING:
    from etude.tuning.config.recipe import Recipe

recipe_app = typer.Typer(
    no_args_is_help=True, help="List shipped recipes, look up keys, check and resolve recipes."
)
app.add_typer(recipe_app, name="recipe")


@recipe_app.command(
    "list", epilog="Examples:\n\n`etude recipe list`\n\n`etude recipe list --json | jq '.[].name'`"
)
def list_(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the recipes that Etude ships with; `etude tune NAME` runs one."""
    from rich.console import Console
    from rich.table import Table

    from etude.tuning.config.shipped import shipped_recipes, summary_line

    recipes = {name: (file, summary_line(file)) for name, file in shipped_recipes().items()}
    if as_json:
        rows = [
            {"name": name, "summary": summary, "file": str(file)}
            for name, (file, summary) in recipes.items()
        ]
        typer.echo(json.dumps(rows, indent=2))
        return
    table = Table.grid(padding=(0, 2, 0, 0))
    for name, (_, summary) in recipes.items():
        table.add_row(name, summary)
    Console(highlight=False, markup=False).print(table)


@recipe_app.command(
    "keys", epilog="Examples:\n\n`etude recipe keys`\n\n`etude recipe keys learning`"
)
def keys(
    word: Annotated[
        str,
        typer.Argument(help="Show keys with this word in their name or description. Default: all."),
    ] = "",
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the page of docs/reference/recipe.md.")
    ] = False,
) -> None:
    """List the keys of a recipe with type, default and description."""
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    from etude.core.errors import RecipeError
    from etude.tuning.config import reference
    from etude.tuning.config.recipe import Recipe

    if markdown:
        typer.echo(reference.markdown(Recipe, reference.EXAMPLE), nl=False)
        return
    found = reference.search(Recipe, word)
    if not found:
        raise RecipeError(f"no key has {word!r} in its name or meaning; etude recipe keys has all")
    console = Console(highlight=False)
    for key in found:
        line = Text(key.name, style="bold")
        line.append(f"  {key.words}; default {reference.as_yaml(key.default)}", style="dim")
        console.print(line, soft_wrap=True)
        console.print(Padding(Text(key.meaning), (0, 0, 0, 4)))


@recipe_app.command("show", epilog="Examples:\n\n`etude recipe show docstrings`")
def show(
    file: Annotated[
        Path,
        typer.Argument(
            help="A YAML file, or the name of a shipped recipe.", autocompletion=complete_recipe
        ),
    ],
    changed: Annotated[
        bool, typer.Option("--changed", help="Print only values that differ from the default.")
    ] = False,
) -> None:
    """Print a recipe with all defaults filled in; values that differ are marked."""
    from etude.tuning.config import reference
    from etude.tuning.config.recipe import Recipe

    recipe, _ = _read(file)
    values = reference.flatten(recipe.model_dump(mode="json"), Recipe)
    defaults = {key.name: key.default for key in reference.keys(Recipe)}
    differ = [name for name, value in values.items() if value != defaults[name]]
    notes = {name: [f"default {reference.as_yaml(defaults[name])}"] for name in differ}
    if changed:
        values = {name: values[name] for name in differ}
    typer.echo(reference.nested(values, Recipe, notes), nl=False)


@recipe_app.command("check", epilog="Examples:\n\n`etude recipe check my-recipe.yaml docstrings`")
def check(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="YAML files, or names of shipped recipes.", autocompletion=complete_recipe
        ),
    ],
) -> None:
    """Check recipes and report every error by its key. The exit code is 2 if there is one."""
    from etude.core.errors import RecipeError

    faulty = False
    for file in files:
        try:
            _, note = _read(file)
        except RecipeError as error:
            faulty = True
            typer.echo(f"error: {error}", err=True)
        else:
            typer.echo(f"{file}: sound{note}")
    if faulty:
        raise typer.Exit(2)


def _read(file: Path) -> tuple[Recipe, str]:
    """Read a recipe; one that leaves its data to `--data` is whole, too."""
    from etude.core.errors import RecipeError
    from etude.tuning.config.recipe import Recipe

    recipe = Recipe.read(file)
    try:
        recipe.require_data()
    except RecipeError:
        return recipe, ", with its data named by --data"
    return recipe, ""


@recipe_app.command(
    "schedule",
    epilog="Examples:\n\n`etude recipe schedule docstrings`\n\n"
    "`etude recipe schedule docstrings --set train.lr_scheduler=one_cycle --steps 200`\n\n"
    "`etude recipe schedule my-recipe.yaml --svg schedule.svg`",
)
def schedule(
    recipe: Annotated[
        Path,
        typer.Argument(
            help="A YAML file, or the name of a shipped recipe.", autocompletion=complete_recipe
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change one key of the recipe, as in `train.lr_scheduler=linear`. May be "
            "repeated.",
            autocompletion=complete_recipe_key,
        ),
    ] = None,
    data: Annotated[str | None, typer.Option(help="Training data instead of the recipe's.")] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Optimiser steps of the run. Default: train.max_steps, or what the data come to.",
        ),
    ] = None,
    svg: Annotated[Path | None, typer.Option(help="Draw it into this SVG file as well.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print every step's rate.")] = False,
) -> None:
    """Draw the learning rate over the steps of a run, without running it."""
    from etude.app.schedule import recipe_schedule
    from etude.cli.spinner import working
    from etude.core import units as q
    from etude.tuning.report.chart import exponent_tick
    from etude.tuning.report.plot import text_plot
    from etude.tuning.report.series import Series

    with working("Counting the steps"):
        found = recipe_schedule(recipe, overrides or (), data=data, steps=steps)
    if svg is not None:
        write_output(svg, found.svg(), to_stderr=True)
    if as_json:
        typer.echo(json.dumps(found.as_json()))
        return
    curve = Series(list(range(len(found.rates))), [*found.rates])
    ends = "1", f"step {len(found.rates):,}"
    typer.echo(text_plot({"lr": curve}, ends=ends, tick=exponent_tick, from_zero=True))
    typer.echo(
        f"{found.scheduler}: warm-up in {found.warmup:,} steps; peak {q.rate(max(found.rates))}, "
        f"last {q.rate(found.rates[-1])}"
    )
    typer.echo(found.note)


@recipe_app.command("schema", epilog="Examples:\n\n`etude recipe schema > recipe.schema.json`")
def schema() -> None:
    """Print the JSON Schema of a recipe, for editors that check YAML while it is typed."""
    from etude.tuning.config.recipe import Recipe
    from etude.tuning.config.reference import json_schema

    typer.echo(json.dumps(json_schema(Recipe), indent=2))
