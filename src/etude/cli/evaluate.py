"""`etude eval`: loss and the metrics of the task, of a run on held-out data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from etude.cli.complete import complete_run
from etude.cli.root import app

if TYPE_CHECKING:
    from etude.tuning.runs.folder import RunFolder


@app.command(
    "eval",
    epilog="Examples:\n\n"
    "`etude eval runs/latest`\n\n"
    "`etude eval runs/latest --data questions.jsonl --base`\n\n"
    "`etude eval runs/latest --forgetting`\n\n"
    "`etude eval runs/latest --final`",
)
def evaluate(
    run: Annotated[
        str,
        typer.Argument(help="A run: `latest`, a name, or a path.", autocompletion=complete_run),
    ] = "latest",
    data: Annotated[
        Path | None, typer.Option(help="Evaluate on this file instead of the run's own data.")
    ] = None,
    base: Annotated[bool, typer.Option("--base", help="Measure the base model, too.")] = False,
    generate: Annotated[
        int | None,
        typer.Option(min=0, help="Number of answers to generate and score. Default: the recipe's."),
    ] = None,
    forgetting: Annotated[
        bool,
        typer.Option(
            "--forgetting",
            help="Measure what the model lost outside its task instead: knowledge, prose, "
            "instructions. Added to the report.",
        ),
    ] = False,
    prose: Annotated[
        Path | None,
        typer.Option(help="With --forgetting: a text file instead of Python's reference."),
    ] = None,
    final: Annotated[
        bool,
        typer.Option(
            "--final",
            help="Open the test set (`data.test`, or --data where the recipe names none) and "
            "evaluate on it; that it was opened, and when, is kept with the run.",
        ),
    ] = False,
    again: Annotated[
        bool,
        typer.Option("--again", help="With --final: open a test set that was opened before."),
    ] = False,
    runs: Annotated[Path, typer.Option(help="Folder that runs are kept in.")] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Measure a fine-tuned model on held-out data: its loss and the metrics of its task."""
    from rich.console import Console
    from rich.table import Table

    from etude.core import units as q
    from etude.core.errors import RecipeError
    from etude.tuning.evaluation import evaluate_run, evaluated_metrics
    from etude.tuning.final_test import final_test
    from etude.tuning.report.details.final_test import figure, opened, warnings
    from etude.tuning.report.live import TerminalProgress
    from etude.tuning.runs.folder import find_run

    folder = find_run(run, runs)
    if again and not final:
        raise RecipeError("--again is for --final: it opens a test set once more")
    if final and forgetting:
        raise RecipeError("--final opens the test set, --forgetting measures elsewhere: name one")
    if forgetting:
        _forgetting(folder, prose, as_json=as_json)
        return

    def say(line: str) -> None:
        typer.echo(line, err=True)

    how: dict[str, Any] = {
        "data": data,
        "base": base,
        "generate": generate,
        "progress": TerminalProgress(quiet=as_json),
        "on_message": say,
    }
    record: dict[str, Any] | None = None
    if final:
        record = final_test(folder, again=again, **how)
        results = record["openings"][-1]["results"]
    else:
        results = evaluate_run(folder, **how)
    if as_json:
        typer.echo(json.dumps(record or results, indent=2))
        return
    table = Table()
    shown = [m for m in evaluated_metrics(folder) if any(m.name in r for r in results.values())]
    table.add_column("")
    for metric in shown:
        table.add_column(metric.title, justify="right")
    table.add_column("samples", justify="right")
    for voice, result in results.items():
        values = (figure(metric, result) for metric in shown)
        table.add_row(voice, *values, q.number(result["samples"]))
    Console(highlight=False).print(table)
    for line in () if record is None else (opened(record), *warnings(record)):
        typer.echo(line)
    if (note := results["tuned"].get("note")) is not None:
        typer.echo(note, err=True)


def _forgetting(folder: RunFolder, prose: Path | None, *, as_json: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    from etude.core import units as q
    from etude.tuning.forgetting.measure import measure_forgetting
    from etude.tuning.report.details.forgetting import change_table, verdict
    from etude.tuning.report.live import TerminalProgress
    from etude.tuning.report.page import write_report

    record = measure_forgetting(folder, text=prose, progress=TerminalProgress(quiet=as_json))
    page = write_report(folder)
    if as_json:
        typer.echo(json.dumps(record, indent=2))
        return
    drawn = change_table(record, folder.read_json("summary.json") or {})
    table = Table()
    for number, column in enumerate(drawn.columns):
        table.add_column(column, justify="right" if number else "left")
    for row in drawn.rows:
        table.add_row(*row)
    Console(highlight=False).print(table)
    typer.echo(verdict(record))
    for note in record["notes"]:
        typer.echo(note, err=True)
    kept = ", the base's scores kept from before" if record["base_kept"] else ""
    typer.echo(f"measured in {q.duration(record['seconds'])}{kept}; report: {page}")
