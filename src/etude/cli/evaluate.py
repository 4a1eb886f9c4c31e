"""`etude eval`: loss and the metrics of the task, of a run on held-out data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from etude.cli.complete import complete_run
from etude.cli.root import app


@app.command(
    "eval",
    epilog="Examples:\n\n"
    "`etude eval runs/latest`\n\n"
    "`etude eval runs/latest --data questions.jsonl --base`",
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
    runs: Annotated[Path, typer.Option(help="Folder that runs are kept in.")] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Measure a fine-tuned model on held-out data: its loss and the metrics of its task."""
    from rich.console import Console
    from rich.table import Table

    from etude.core import units as q
    from etude.tuning.evaluation import evaluate_run, evaluated_metrics
    from etude.tuning.report.live import TerminalProgress
    from etude.tuning.runs.folder import find_run

    folder = find_run(run, runs)
    results = evaluate_run(
        folder,
        data=data,
        base=base,
        generate=generate,
        progress=TerminalProgress(quiet=as_json),
        on_message=lambda line: typer.echo(line, err=True),
    )
    if as_json:
        typer.echo(json.dumps(results, indent=2))
        return
    table = Table()
    shown = [m for m in evaluated_metrics(folder) if any(m.name in r for r in results.values())]
    table.add_column("")
    for metric in shown:
        table.add_column(metric.title, justify="right")
    table.add_column("samples", justify="right")
    for voice, result in results.items():
        errors = result.get("standard_errors", {})
        values = (
            f"{m.text(result.get(m.name))} {m.error_text(errors.get(m.name))}".strip()
            for m in shown
        )
        table.add_row(voice, *values, q.number(result["samples"]))
    Console(highlight=False).print(table)
    if (note := results["tuned"].get("note")) is not None:
        typer.echo(note, err=True)
