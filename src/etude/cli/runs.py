"""`etude runs`: list, show, compare and remove the runs of `etude tune`."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from etude.cli.complete import complete_run
from etude.cli.root import app

if TYPE_CHECKING:
    from datetime import timedelta

    from etude.tuning.report.paired import PairedTest

runs_app = typer.Typer(
    help="List, show, compare and clean up runs.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(runs_app, name="runs")

Base = Annotated[Path, typer.Option("--runs", help="Folder that runs are kept in.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
RUNS = Path("runs")

STATE_STYLES = {
    "finished": "green",
    "queued": "blue",
    "starting": "cyan",
    "running": "cyan",
    "stopping": "cyan",
    "stopped": "yellow",
    "killed": "yellow",
    "failed": "red",
    "diverged": "red",
}


@runs_app.command(
    "list", epilog="Examples:\n\n`etude runs list`\n\n`etude runs list --json | jq '.[].name'`"
)
def list_(runs: Base = RUNS, as_json: AsJson = False) -> None:
    """List all runs, the oldest first, and start the next of the queue if none is at work."""
    from etude.app.jobs import advance
    from etude.app.runs import list_facts
    from etude.core import units as q
    from etude.core.errors import RunError

    # In a folder that may only be read, the list is still worth having.
    with suppress(RunError):
        advance(runs)
    facts = list_facts(runs)
    if as_json:
        typer.echo(json.dumps([fact.as_json() for fact in facts], indent=2))
        return
    if not facts:
        typer.echo(f"no runs in {runs} yet; start one with: etude tune RECIPE")
        return
    rows = [
        (
            fact.name,
            fact.state,
            str(fact.figures.get("method") or ""),
            str(fact.figures.get("model") or ""),
            q.number(fact.steps),
            _arrow(q.loss, fact.figures.get("eval_loss_before"), fact.figures.get("eval_loss")),
            _score(fact.figures),
            q.duration(fact.seconds),
            fact.damaged or fact.detail,
        )
        for fact in facts
    ]
    head = ("name", "state", "method", "model", "steps", "loss", "score", "time", "reason")
    print_table(head, rows, left=4, last_left=True)


@runs_app.command(
    epilog="Examples:\n\n`etude runs show`\n\n`etude runs show docstrings-2026 --json`"
    "\n\n`etude runs show latest --report`"
)
def show(
    name: Annotated[
        str,
        typer.Argument(
            help="`latest`, a name, the start of one, or a path.", autocompletion=complete_run
        ),
    ] = "latest",
    report: Annotated[
        bool,
        typer.Option(
            "--report", help="Write `report.html` again; a run that was stopped has none yet."
        ),
    ] = False,
    runs: Base = RUNS,
    as_json: AsJson = False,
) -> None:
    """Show the state, figures and loss curve of a run."""
    from rich.console import Console
    from rich.text import Text

    from etude.app.runs import run_details
    from etude.tuning.report.details.final_test import opened, test_figures, warnings
    from etude.tuning.report.differences import loss_curves
    from etude.tuning.report.plot import text_plot
    from etude.tuning.report.sections import headline

    run = run_details(name, runs, report=report)
    if as_json:
        typer.echo(json.dumps(run.as_json(), indent=2))
        return
    folder = run.folder
    console = Console(highlight=False)
    state, detail = run.facts.state, str(run.detail or "")
    console.print(
        Text.assemble((folder.name, "bold"), "  ", (state, STATE_STYLES[state]), "  ", detail),
        soft_wrap=True,
    )
    for figure in headline(run.summary, folder.read_metrics()):
        before = f"{figure.before} → " if figure.before else ""
        note = " ".join(filter(None, (figure.change, figure.note)))
        console.print(f"{figure.label:>22}  {before}{figure.value}  [dim]{note}[/dim]")
    if run.test is not None:
        console.print(f"\n{opened(run.test)}", markup=False, soft_wrap=True)
        for label, text in test_figures(run.test):
            console.print(f"{label:>22}  {text}", markup=False, soft_wrap=True)
        for line in warnings(run.test):
            console.print(f"{'note':>22}  {line}", markup=False, soft_wrap=True)
    if plot := text_plot(loss_curves([folder])):
        console.print("\nTraining loss, smoothed\n" + plot, markup=False, soft_wrap=True)
    for label, path in (("report", folder.report), ("adapter", folder.adapter)):
        if path.exists():
            console.print(f"{label:>22}  {path}", markup=False, soft_wrap=True)


@runs_app.command(
    epilog="Examples:\n\n`etude runs compare first-run second-run`\n\n"
    "`etude runs compare lora-2026 qlora-2026 latest --paired`\n\n"
    "`etude runs compare lora-2026 qlora-2026 latest --html compare.html`"
)
def compare(
    names: Annotated[
        list[str], typer.Argument(help="Two runs or more.", autocompletion=complete_run)
    ],
    html: Annotated[
        Path | None, typer.Option(help="Write a web page with charts to this file instead.")
    ] = None,
    paired: Annotated[
        bool,
        typer.Option(
            "--paired",
            help="Test every pair of these runs on the samples that both were evaluated on, "
            "corrected for the number of pairs, and print nothing else.",
        ),
    ] = False,
    runs: Base = RUNS,
    as_json: AsJson = False,
) -> None:
    """Compare runs: figures, loss curves, and what differs between their recipes."""
    from etude.app.runs import compare_runs, find_runs_to_compare
    from etude.tuning.report.differences import loss_curves, write_comparison
    from etude.tuning.report.plot import text_plot
    from etude.tuning.report.sections import comparison

    folders = find_runs_to_compare(names, runs)
    if html is not None:
        write_comparison(folders, html)
        typer.echo(html)
        return
    compared = compare_runs(folders, every_pair=paired)
    if as_json:
        typer.echo(json.dumps(compared.as_json(), indent=2))
        return
    if paired:
        _print_tests(compared.tests)
        return
    differences = compared.differences
    finished = all(folder.state == "finished" for folder in folders)
    table = comparison(compared.figures, rank=finished)
    assert table is not None
    print_table(
        ("", *table["columns"]),
        [
            (row["method"], *(f"{text} *" if best else text for text, best in row["cells"]))
            for row in table["rows"]
        ],
    )
    if differences:
        typer.echo("\nWhat differs between the recipes")
        print_table(
            ("", *(folder.name for folder in folders)),
            [(key, *values) for key, values in differences],
        )
    else:
        typer.echo("\nThe recipes differ in nothing but the name")
    for test in compared.tests:
        typer.echo(f"\n{test.sentence}")
    typer.echo("\nTraining loss, smoothed")
    typer.echo(text_plot(loss_curves(folders)))


def _print_tests(tests: Sequence[PairedTest]) -> None:
    from etude.core.errors import RunError
    from etude.tuning.report.paired import paired_table

    if not tests:
        raise RunError("no two of these runs were evaluated on the same samples")
    table = paired_table(tests)
    print_table(table.columns, table.rows)
    for test in tests:
        typer.echo(f"\n{test.sentence}")


@runs_app.command(
    epilog="Examples:\n\n`etude runs clean --failed --dry-run`\n\n"
    "`etude runs clean --older-than 30d --yes`"
)
def clean(
    older_than: Annotated[
        str | None,
        typer.Option(help="Only runs last written at least this long ago: `12h`, `30d`, `8w`."),
    ] = None,
    failed: Annotated[
        bool, typer.Option("--failed", help="Only runs that failed or diverged.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be removed, and remove nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    runs: Base = RUNS,
    as_json: AsJson = False,
) -> None:
    """Remove runs that match all filters given; never one that is running."""
    from etude.app.runs import removable, size_of
    from etude.core import units as q
    from etude.core.errors import RunError
    from etude.tuning.runs.folder import remove_run

    age = _age(older_than) if older_than is not None else None
    doomed = removable(runs, older_than=age, failed=failed)
    sizes = [size_of(folder) for folder in doomed]
    if doomed and not dry_run and not yes:
        if as_json or not sys.stdin.isatty():
            raise RunError(f"{len(doomed)} runs would be removed; add --yes to do it unasked")
        for folder, size in zip(doomed, sizes, strict=True):
            typer.echo(f"{folder.path}  {q.size(size)}  {folder.state}")
        typer.confirm(f"Remove {len(doomed)} runs, {q.size(sum(sizes))}?", abort=True)
    for folder in doomed:
        if not dry_run:
            remove_run(folder)
    if as_json:
        typer.echo(
            json.dumps(
                {
                    "removed": [] if dry_run else [folder.name for folder in doomed],
                    "would_remove": [folder.name for folder in doomed] if dry_run else [],
                    "bytes": sum(sizes),
                },
                indent=2,
            )
        )
        return
    verb = "would remove" if dry_run else "removed"
    for folder, size in zip(doomed, sizes, strict=True):
        typer.echo(f"{verb} {folder.path}  {q.size(size)}")
    typer.echo(f"{verb} {len(doomed)} runs, {q.size(sum(sizes))}")


def _score(fact: dict[str, Any]) -> str:
    """Return the most telling metric beside the loss, before and after."""
    from etude.tuning.metrics.metric import metrics_of

    listed = [metric for metric in metrics_of(fact, "") if metric.name != "eval_loss"]
    if not listed:
        return ""
    metric = listed[0]
    before, after = fact.get(f"{metric.name}_before"), fact.get(metric.name)
    return f"{metric.title} {_arrow(metric.text, before, after)}"


def _arrow(written: Any, before: float | None, after: float | None) -> str:
    return f"{written(before)} → {written(after)}" if before is not None else written(after)


def print_table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    left: int = 1,
    *,
    last_left: bool = False,
) -> None:
    """Print rows aligned, without cutting anything off.

    Args:
        head: the columns' titles.
        rows: a cell for each column.
        left: columns aligned to the left, from the first; the others are aligned to the right.
        last_left: whether the last is aligned to the left as well.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    # A name that is cut off cannot be typed: wider than the terminal is better than shortened.
    console = Console(highlight=False, width=1000)
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for index, title in enumerate(head):
        to_left = index < left or (last_left and index == len(head) - 1)
        table.add_column(title, justify="left" if to_left else "right", no_wrap=True)
    for row in rows:
        cells = [escape(cell) for cell in row]
        table.add_row(*(f"[{STATE_STYLES[c]}]{c}" if c in STATE_STYLES else c for c in cells))
    console.print(table, soft_wrap=True)


def _age(text: str) -> timedelta:
    """Read `30d` as a span of time.

    Raises:
        RunError: it is no such span.
    """
    from datetime import timedelta

    from etude.core.errors import RunError

    match = re.fullmatch(r"(\d+)\s*([mhdw])", text.strip())
    if match is None:
        raise RunError(f"--older-than wants a span of time such as 12h, 30d or 8w; got {text!r}")
    unit = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}[match[2]]
    return timedelta(**{unit: int(match[1])})
