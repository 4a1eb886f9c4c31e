"""`etude tune`: fine-tune a model by a recipe, or resume a run."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from etude.cli.complete import complete_recipe, complete_recipe_key, complete_run
from etude.cli.root import app


class Method(StrEnum):
    """What is trained, on what base."""

    qlora = "qlora"
    lora = "lora"
    full = "full"


@app.command(
    epilog="Examples:\n\n"
    "`etude tune docstrings`\n\n"
    "`etude tune docstrings --set adapter.rank=8 --data path/to/my/package`\n\n"
    "`etude tune --resume latest`"
)
def tune(
    recipe: Annotated[
        Path | None,
        typer.Argument(
            help="A YAML file, or the name of a recipe that Etude ships with "
            "(`etude recipe list`).",
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
    data: Annotated[
        str | None,
        typer.Option(
            help="Train on this data instead: a file (`-`: standard input) or, for docstrings, a "
            "package or folder."
        ),
    ] = None,
    method: Annotated[
        Method | None,
        typer.Option(help="Use QLoRA, LoRA or full fine-tuning instead of the recipe's method."),
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Run all three methods on the same data.")
    ] = False,
    resume: Annotated[
        str | None,
        typer.Option(
            help="Resume this run: `latest`, a name, or a path.",
            metavar="RUN",
            autocompletion=complete_run,
        ),
    ] = None,
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
    from etude.app import tune as service
    from etude.core.errors import RecipeError
    from etude.tuning.report.outcome import print_comparison, print_outcome
    from etude.tuning.report.terminal import TerminalView

    if resume is not None:
        if recipe or overrides or data or method or compare:
            raise RecipeError("--resume uses the run's own recipe; it takes no other options")
        plan = service.plan_resumption(resume, runs)
    elif recipe is None:
        raise RecipeError("name a recipe (etude tune docstrings) or use --resume RUN")
    else:
        plan = service.plan_run(
            recipe, overrides or (), data=data, method=method.value if method else None
        )
    silent = quiet or as_json
    view = TerminalView(quiet=silent)
    run = service.start(
        plan,
        base=runs,
        callbacks=[view],
        progress=view.progress,
        ignore_memory=ignore_memory,
        compare=compare,
        quiet=silent,
    )
    if not run.finished:
        typer.echo(f"stopped; resume with: etude tune --resume {run.folder.path}", err=True)
        raise typer.Exit(130)
    if as_json:
        typer.echo(run.folder.summary.read_text("utf-8"), nl=False)
        return
    print_outcome(run.folder.path, show=plan.recipe.eval.show)
    if run.comparison:
        print_comparison(run.comparison)
