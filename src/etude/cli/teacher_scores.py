"""`etude teacher-scores`: store what a teacher says about the training samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from etude.cli.complete import complete_recipe, complete_recipe_key, complete_task
from etude.cli.root import app


@app.command(
    "teacher-scores",
    epilog="Examples:\n\n"
    "`etude teacher-scores distillation --data reviews.csv --out scores`\n\n"
    "`etude teacher-scores chat --data conversations.jsonl --set objective.kind=distill --set "
    "objective.teacher=NAME --set objective.scores_per_position=50 --out scores`",
)
def teacher_scores(
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
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the scores. Default: the recipe's objective.teacher_scores."),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(help="The task, as for `etude tune`.", autocompletion=complete_task),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Use this student instead.")] = None,
    data: Annotated[str | None, typer.Option(help="Use this training data instead.")] = None,
    ignore_memory: Annotated[
        bool,
        typer.Option(
            "--ignore-memory", help="Begin even if the memory estimate says that it cannot fit."
        ),
    ] = False,
    runs: Annotated[
        Path, typer.Option(help="Folder that runs are kept in, for objective.teacher.")
    ] = Path("runs"),
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print results only.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what is stored as JSON.")] = False,
) -> None:
    """Store a teacher's scores of a recipe's training samples, for any number of runs.

    Runs with the same data and `objective.teacher_scores` use them, and do not load the teacher.
    Stopped or killed, it goes on where it was.
    """
    from etude.app.teacher_scores import store_scores
    from etude.app.tune import DataOptions, plan_run
    from etude.tuning.report.terminal import TerminalView

    changes = list(overrides or ())
    if out is not None:
        changes.append(f"objective.teacher_scores={json.dumps(str(out))}")
    plan = plan_run(recipe, changes, task=task, model=model, data=DataOptions(data))
    view = TerminalView(quiet=quiet or as_json)
    for note in plan.notes:
        view.on_message(note)
    try:
        stored = store_scores(
            plan,
            base=runs,
            callbacks=view,
            progress=view.progress,
            ignore_memory=ignore_memory,
        )
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    if as_json:
        typer.echo(json.dumps(stored.as_json()))
        return
    what = "likeliest words" if stored.kind == "top_k" else "drawn words"
    typer.echo(
        f"{stored.folder}: {stored.per_position:,} {what} of {stored.words:,} for each of "
        f"{stored.positions:,} positions of {stored.samples:,} samples, by {stored.teacher} at "
        f"T = {stored.temperature:g}\n"
        f"covered mass {100 * stored.covered:.2f} %, {stored.bytes / 1e6:,.1f} MB, "
        f"{stored.bytes / max(stored.positions, 1):,.0f} bytes a position\n"
        f"use them: --set objective.teacher_scores={stored.folder}"
    )
