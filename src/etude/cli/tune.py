"""`etude tune`: fine-tune a model by a recipe, or resume a run."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from etude.cli.complete import complete_recipe, complete_recipe_key, complete_run, complete_task
from etude.cli.queued import say_queued
from etude.cli.root import app

if TYPE_CHECKING:
    pass


class Method(StrEnum):
    """What is trained, on what base."""

    qlora = "qlora"
    lora = "lora"
    full = "full"


@app.command(
    epilog="Examples:\n\n"
    "`etude tune docstrings`\n\n"
    "`etude tune text-classification --data reviews.csv`\n\n"
    "`etude tune --data reviews.csv --text-column review --label-column stars`\n\n"
    "`etude tune image-classification --data photos`\n\n"
    "`etude tune docstrings --set adapter.rank=8 --data path/to/my/package`\n\n"
    "`etude tune text-classification --data reviews.csv --folds 5`\n\n"
    "`etude tune --resume latest`\n\n"
    "`etude tune --resume latest --set train.epochs=4`\n\n"
    "`etude tune --clone latest --set adapter.rank=16 --queue`"
)
def tune(
    recipe: Annotated[
        Path | None,
        typer.Argument(
            help="A YAML file, or the name of a recipe that Etude ships with "
            "(`etude recipe list`). Default: the recipe of the task.",
            show_default=False,
            autocompletion=complete_recipe,
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change one key of the recipe, as in `adapter.rank=8`. May be repeated.",
            autocompletion=complete_recipe_key,
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            help="What to tune for. Default: the recipe's task; without a recipe, `auto`, which "
            "reads it from the data.",
            autocompletion=complete_task,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Tune this model instead: an alias, a hub id, a folder or a GGUF file."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="Train on this data instead: a file (`-`: standard input), a folder of folders "
            "of images or, for docstrings, a package or folder."
        ),
    ] = None,
    eval_data: Annotated[
        str | None,
        typer.Option(help="Evaluate on this file. Default: rows held out of the data."),
    ] = None,
    text_column: Annotated[
        str | None, typer.Option(help="Column of the text, if its name is not `text`.")
    ] = None,
    label_column: Annotated[
        str | None, typer.Option(help="Column of the label, if its name is not `label`.")
    ] = None,
    image_column: Annotated[
        str | None,
        typer.Option(help="Column of the paths of images, if its name is not `image`."),
    ] = None,
    method: Annotated[
        Method | None,
        typer.Option(help="Use QLoRA, LoRA or full fine-tuning instead of the recipe's method."),
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Run all three methods on the same data.")
    ] = False,
    folds: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="Cross-validation: divide the data into so many parts and make a run for each, "
            "which holds it out.",
        ),
    ] = None,
    repeats: Annotated[
        int | None,
        typer.Option(min=1, help="With --folds: divide the data so often, each time otherwise."),
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(
            help="Resume this run: `latest`, a name, or a path. With `--set train.epochs=4` (or "
            "max_steps, max_minutes, patience) a finished run goes on as well.",
            metavar="RUN",
            autocompletion=complete_run,
        ),
    ] = None,
    clone: Annotated[
        str | None,
        typer.Option(
            help="Start a new run by the recipe of this one, with the changes of `--set`.",
            metavar="RUN",
            autocompletion=complete_run,
        ),
    ] = None,
    queue: Annotated[
        bool,
        typer.Option(
            "--queue",
            help="Put the run into the queue and return: a process of its own works on it, one "
            "run after another, and goes on when this terminal is closed (`etude runs queue`).",
        ),
    ] = False,
    ignore_memory: Annotated[
        bool,
        typer.Option(
            "--ignore-memory",
            help="Start even if the memory estimate says that the run cannot fit.",
        ),
    ] = False,
    runs: Annotated[Path, typer.Option(help="Folder that runs are kept in.")] = Path("runs"),
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print results only.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Fine-tune a model and show what changed.

    Ctrl-C stops the run and keeps its progress; the last line says how to resume it.
    """
    from etude.app import folds as cross_validation
    from etude.app import jobs
    from etude.app import tune as service
    from etude.cli.folds import run_folds
    from etude.core.errors import RecipeError
    from etude.tuning.report.outcome import print_comparison, print_outcome
    from etude.tuning.report.terminal import TerminalView
    from etude.tuning.runs.folder import find_run

    named = service.DataOptions(data, eval_data, text_column, label_column, image_column)
    if resume is not None or clone is not None:
        if any((recipe, task, model, method, compare)) or named != service.DataOptions():
            raise RecipeError(
                "--resume uses the run's own recipe; of other options it takes --set train.epochs=…"
                if clone is None
                else "--clone uses the recipe of the run, with the changes of --set"
            )
        if resume is not None and clone is not None:
            raise RecipeError("--resume goes on with a run, --clone begins another: name one")
    if repeats is not None and folds is None and resume is None:
        raise RecipeError("--repeats is for --folds: it divides the data so often")
    if folds is not None and (queue or compare):
        raise RecipeError("--folds makes its runs here, by one method: no --queue, no --compare")
    if queue:
        if compare:
            raise RecipeError("--compare runs three methods here; it takes no --queue")
        if resume is not None:
            say_queued(jobs.resume_job(resume, runs, overrides or (), ignore_memory=ignore_memory))
            return
    again = None if resume is None or overrides else find_run(resume, runs)
    if again is not None and again.is_cross_validation:
        planned = cross_validation.plan_folds_resumption(again, folds, repeats)
        run_folds(planned, runs, quiet=quiet, as_json=as_json)
        return
    if resume is not None:
        if folds is not None or repeats is not None:
            raise RecipeError(f"--resume {resume} is no cross-validation; omit --folds, --repeats")
        plan = service.plan_resumption(resume, runs, overrides or ())
    elif clone is not None:
        plan = jobs.plan_clone(clone, runs, overrides or ())
    else:
        plan = service.plan_run(
            recipe,
            overrides or (),
            task=task,
            model=model,
            data=named,
            method=method.value if method else None,
        )
    if queue:
        for note in plan.notes:
            typer.echo(note, err=True)
        say_queued(jobs.add_job(plan, runs, ignore_memory=ignore_memory))
        return
    if folds is not None:
        for note in () if quiet or as_json else plan.notes:
            typer.echo(note, err=True)
        planned = cross_validation.plan_folds(plan.recipe, folds, repeats or 1)
        run_folds(planned, runs, quiet=quiet, as_json=as_json)
        return
    silent = quiet or as_json
    view = TerminalView(quiet=silent)
    for note in plan.notes:
        view.on_message(note)
    try:
        run = service.start(
            plan,
            base=runs,
            callbacks=[view],
            progress=view.progress,
            ignore_memory=ignore_memory,
            compare=compare,
            quiet=silent,
        )
    except KeyboardInterrupt:
        # What it means for the run was said when the signal came.
        raise typer.Exit(130) from None
    if not run.finished:
        typer.echo(f"stopped; resume with: etude tune --resume {run.folder.path}", err=True)
        raise typer.Exit(130)
    if as_json:
        typer.echo(run.folder.summary.read_text("utf-8"), nl=False)
        return
    print_outcome(run.folder.path, show=plan.recipe.eval.show)
    if run.comparison:
        print_comparison(run.comparison)
