"""`etude lr-find`: propose a learning rate by a range test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from etude.cli.complete import complete_recipe, complete_recipe_key, complete_task
from etude.cli.output import write_output
from etude.cli.root import app


@app.command(
    "lr-find",
    epilog="Examples:\n\n"
    "`etude lr-find docstrings`\n\n"
    "`etude lr-find text-classification --data reviews.csv --svg lr.svg`\n\n"
    "`etude lr-find docstrings --set adapter.kind=ia3 --from 1e-4 --to 10`",
)
def lr_find(
    recipe: Annotated[
        Path | None,
        typer.Argument(
            help="A YAML file, or the name of a shipped recipe. Default: the recipe of the task.",
            show_default=False,
            autocompletion=complete_recipe,
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change one key of the recipe. May be repeated.",
            autocompletion=complete_recipe_key,
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(help="The task, as for `etude tune`.", autocompletion=complete_task),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Use this model instead.")] = None,
    data: Annotated[str | None, typer.Option(help="Use this training data instead.")] = None,
    low: Annotated[
        float | None,
        typer.Option("--from", help="First rate. Default: 1e-4; full fine-tuning: 1e-6."),
    ] = None,
    high: Annotated[
        float | None,
        typer.Option("--to", help="Last rate. Default: 1; full fine-tuning: 1e-2."),
    ] = None,
    steps: Annotated[int, typer.Option(min=20, help="Optimiser steps at most.")] = 100,
    svg: Annotated[Path | None, typer.Option(help="Draw the curve into this SVG file.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with the curve.")] = None,
    ignore_memory: Annotated[
        bool,
        typer.Option(
            "--ignore-memory", help="Begin even if the memory estimate says that it cannot fit."
        ),
    ] = False,
    runs: Annotated[
        Path, typer.Option(help="Folder that runs are kept in, for adapter.start_from.")
    ] = Path("runs"),
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print results only.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the curve as JSON.")] = False,
) -> None:
    """Raise the learning rate in one short run until the loss diverges, and propose a rate.

    Model, data, adapter and optimiser are those of the run. Its weights are discarded, and nothing
    stays on disk but the files that are asked for.
    """
    from etude.app.lr_find import find_lr
    from etude.app.tune import DataOptions, plan_run
    from etude.core import units as q
    from etude.tuning.report.plot import text_plot
    from etude.tuning.report.series import Series
    from etude.tuning.report.terminal import TerminalView

    for option, value in (("--from", low), ("--to", high)):
        if value is not None and value <= 0:
            raise typer.BadParameter(f"{option} {value:g} is no learning rate")
    plan = plan_run(recipe, overrides or (), task=task, model=model, data=DataOptions(data))
    view = TerminalView(quiet=quiet or as_json)
    for note in plan.notes:
        view.on_message(note)
    try:
        found = find_lr(
            plan,
            low=low,
            high=high,
            steps=steps,
            base=runs,
            callbacks=view,
            progress=view.progress,
            ignore_memory=ignore_memory,
        )
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    if svg is not None:
        write_output(svg, found.svg(), to_stderr=True)
    if html is not None:
        write_output(html, found.html(), to_stderr=True)
    if as_json:
        typer.echo(json.dumps(found.as_json()))
        return
    test = found.test
    curve = Series(list(range(len(found.drawn))), found.drawn)
    ends = f"{test.rates[0]:.1e}", f"{test.rates[-1]:.1e}"
    typer.echo(text_plot({"loss": curve}, ends=ends))
    low_flat, high_flat = test.flat
    typer.echo(
        f"loss over learning rate, smoothed; ended {test.ended}\n"
        f"falls fastest at {test.rates[test.steepest]:.1e}, lowest "
        f"({q.loss(test.smoothed[test.lowest])} {test.unit}) at {test.rates[test.lowest]:.1e}\n"
        f"flat neighbourhood, where it is hardly higher: {low_flat:.1e} to {high_flat:.1e}\n"
        f"{found.sentence()} The recipe has {found.current:g}."
    )
