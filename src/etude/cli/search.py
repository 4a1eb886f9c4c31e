"""`etude search`: find the values of a recipe that do best, by trials."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from etude.app.stopping import stop_on_signal
from etude.cli.complete import complete_recipe, complete_recipe_key, complete_run, complete_task
from etude.cli.queued import say_queued
from etude.cli.root import app

if TYPE_CHECKING:
    from etude.app.search import SearchResult


class Sampler(StrEnum):
    """How trials are drawn."""

    random = "random"
    tpe = "tpe"
    gp = "gp"


class Cost(StrEnum):
    """What quality may be searched against."""

    saved_bytes = "saved_bytes"
    peak_rss = "peak_rss"
    train_seconds = "train_seconds"


@app.command(
    epilog="Examples:\n\n"
    "`etude search text-classification --data reviews.csv --minutes 60`\n\n"
    "`etude search space.yaml --trials 40`\n\n"
    "`etude search space.yaml --set 'train.lr={low: 1e-4, high: 1e-2, log: true}'`\n\n"
    "`etude search space.yaml --against saved_bytes --sampler tpe`\n\n"
    "`etude search text-classification --data reviews.csv --queue`\n\n"
    "`etude search --resume latest --trials 60`"
)
def search(
    space: Annotated[
        Path | None,
        typer.Argument(
            help="A YAML file: a recipe whose values may be ranges. Or the name of a shipped space "
            "or recipe; without ranges, those that are known to matter are searched. Default: the "
            "recipe of the task.",
            show_default=False,
            autocompletion=complete_recipe,
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change one key of the recipe; the value may be a range, as in "
            "`adapter.rank={choices: [4, 8]}`. May be repeated.",
            autocompletion=complete_recipe_key,
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            help="What to tune for. Default: the recipe's task.", autocompletion=complete_task
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Tune this model instead: an alias, a hub id, a folder or a GGUF file."),
    ] = None,
    data: Annotated[str | None, typer.Option(help="Train on this data instead.")] = None,
    eval_data: Annotated[
        str | None,
        typer.Option(
            help="Compare trials on this file. Default: rows held out of the data. Never a file "
            "that is to judge the result: it is chosen by it."
        ),
    ] = None,
    text_column: Annotated[
        str | None, typer.Option(help="Column of the text, if its name is not `text`.")
    ] = None,
    label_column: Annotated[
        str | None, typer.Option(help="Column of the label, if its name is not `label`.")
    ] = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="Trials, the default recipe included. Default: 20.")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Begin or resume no trial after so many minutes.")
    ] = None,
    metric: Annotated[
        str | None, typer.Option(help="The metric to improve. Default: that of the task.")
    ] = None,
    against: Annotated[
        list[Cost] | None,
        typer.Option(help="A cost to lower at the same time; may be repeated. Without halving."),
    ] = None,
    sampler: Annotated[
        Sampler | None, typer.Option(help="How trials are drawn. Default: tpe.")
    ] = None,
    halving: Annotated[
        bool | None,
        typer.Option(
            "--halving/--no-halving",
            help="Stop most trials early and resume the best. Default: with one objective, not "
            "with gp.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the sampler. Default: 0.")] = None,
    resume: Annotated[
        str | None,
        typer.Option(
            help="Go on with this search: `latest`, a name, or a path; for longer with --trials.",
            metavar="SEARCH",
            autocompletion=complete_run,
        ),
    ] = None,
    queue: Annotated[
        bool,
        typer.Option(
            "--queue",
            help="Put the search into the queue and return: a process of its own works on it, and "
            "goes on when this terminal is closed (`etude runs queue`).",
        ),
    ] = False,
    runs: Annotated[Path, typer.Option(help="Folder that runs are kept in.")] = Path("runs"),
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print results only.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Search for the values of a recipe that do best, and write the recipe to tune with.

    Ctrl-C stops the search and keeps everything; the last line says how to resume it.
    """
    from etude.app import jobs
    from etude.app import search as service
    from etude.app.tune import DataOptions
    from etude.tuning.search.view import SearchView

    named = DataOptions(data, eval_data, text_column, label_column)
    settings: dict[str, Any] = {
        "trials": trials,
        "minutes": minutes,
        "metric": metric,
        "against": [one.value for one in against] if against else None,
        "sampler": sampler.value if sampler else None,
        "halving": halving,
        "seed": seed,
    }
    plan = None
    if resume is None or any((space, overrides, task, model)) or named != DataOptions():
        plan = service.plan_search(
            space, overrides or (), task=task, model=model, data=named, settings=settings
        )
    if resume is not None:
        plan = service.plan_search_resumption(resume, runs, same_as=plan, settings=settings)
    assert plan is not None
    if queue:
        for note in plan.notes:
            typer.echo(note, err=True)
        if resume is None:
            say_queued(jobs.add_search(plan, runs))
        else:
            changed = {key: value for key, value in settings.items() if value is not None}
            say_queued(jobs.resume_job(resume, runs, search=changed))
        return
    view = SearchView(
        plan.space.settings, [one.key for one in plan.space.ranges], quiet=quiet or as_json
    )
    for note in plan.notes:
        view.on_message(note)
    with stop_on_signal(view.on_message, "trial") as stopping:
        view.open()
        try:
            result = service.start(plan, base=runs, view=view, stopping=stopping)
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
        finally:
            view.close()
    if as_json:
        typer.echo(json.dumps(result.as_json(), indent=2))
    else:
        _print_result(result, [one.key for one in plan.space.ranges])
    if not result.finished:
        typer.echo(f"stopped; resume with: etude search --resume {result.folder.path}", err=True)
        raise typer.Exit(130)


def _print_result(result: SearchResult, keys: list[str]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.text import Text

    from etude.core import units as q
    from etude.tuning.search.conclusion import conclusions
    from etude.tuning.search.view import trial_table

    console = Console(highlight=False)
    record = result.record
    console.print(trial_table(record, keys, console.width))
    console.print()
    for label, text in conclusions(record, keys):
        console.print(f"{label:>12}  {escape(text)}", soft_wrap=True)
    spent = sum(trial.seconds for trial in record.trials)
    for label, text in (
        ("time", f"{q.duration(spent)}: as much as {record.trained:.1f} full trainings"),
        ("report", str(result.folder.path / "search.html")),
    ):
        console.print(f"{label:>12}  {escape(text)}", soft_wrap=True)
    if result.best_recipe.exists():
        console.print(
            Text.assemble(("    tune with  ", ""), (f"etude tune {result.best_recipe}", "bold")),
            soft_wrap=True,
        )
