"""`etude data check`: find problems in data that would silently ruin a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from etude.cli.complete import complete_recipe, complete_recipe_key
from etude.cli.data import data_app
from etude.cli.output import write_output

if TYPE_CHECKING:
    from etude.tuning.data.check.fixing import FixReport
    from etude.tuning.data.check.linter import DataReport

_COLORS = {"error": "bold red", "warning": "yellow", "note": "cyan"}


def complete_check(incomplete: str) -> list[str]:
    """Return the checks that start with what is typed."""
    from etude.tuning.data.check.linter import CHECKS

    names = [*CHECKS, *(name for checks in CHECKS.values() for name in checks.split())]
    return sorted({name for name in names if name.startswith(incomplete)})


@data_app.command(
    "check",
    epilog="Examples:\n\n"
    "`etude data check train.jsonl --eval test.jsonl`\n\n"
    "`etude data check --recipe chat --set data.train=conversations.jsonl`\n\n"
    "`etude data check train.jsonl --fix train.fixed.jsonl --html findings.html`",
)
def check(
    file: Annotated[
        str | None,
        typer.Argument(
            help="A data file (`-`: standard input). Default: the data of the recipe.",
            show_default=False,
        ),
    ] = None,
    evaluation: Annotated[Path | None, typer.Option("--eval", help="The evaluation data.")] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Model whose tokenizer and chat template are used: an alias, a hub id, or a path."
        ),
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(
            help="A recipe that says how rows are read: a YAML file, or a shipped one by name.",
            autocompletion=complete_recipe,
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change one key of the recipe, as in `data.prompt=question`. May be repeated.",
            autocompletion=complete_recipe_key,
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="Run only this check or family of checks. May be repeated.",
            autocompletion=complete_check,
        ),
    ] = None,
    skip: Annotated[
        list[str] | None,
        typer.Option(
            help="Skip this check or family of checks. May be repeated.",
            autocompletion=complete_check,
        ),
    ] = None,
    fix: Annotated[
        Path | None,
        typer.Option(
            help="Write the training rows to this JSONL file, with safe corrections applied."
        ),
    ] = None,
    json_file: Annotated[
        Path | None,
        typer.Option(
            "--json",
            help="Write the findings with all row numbers to this file (`-`: standard output).",
        ),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write the findings to this file as a web page.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 if there are warnings, too.")
    ] = False,
    rows: Annotated[
        int, typer.Option(min=0, help="Number of row numbers to print for each finding.")
    ] = 8,
) -> None:
    """Find data problems: duplicates, overlap, cut answers, wrong templates, secrets.

    The exit code is 0 without errors, 1 with errors, and 2 if the data cannot be read.
    Secrets are masked wherever they are shown.
    """
    from etude.app.data import recipe_for, tokenizer_of
    from etude.tuning.data.check.fixing import check_output, write_fixed
    from etude.tuning.data.check.linter import check_data
    from etude.tuning.data.check.page import report_page
    from etude.tuning.report.live import TerminalProgress

    chosen = recipe_for(file, model, recipe, overrides or ())
    spec = chosen.data
    if evaluation is not None:
        spec = spec.model_copy(update={"eval": str(evaluation)})
    if fix is not None:
        check_output(spec, fix)
    to_stdout = json_file is not None and str(json_file) == "-"
    progress = TerminalProgress(quiet=to_stdout)
    # The checks by tokens are of templates and answers, which tagged words and images have none of.
    tokenless = chosen.task in ("token-classification", "image-classification")
    tokenizer = None if tokenless else tokenizer_of(chosen.model, progress)
    report = check_data(
        spec,
        tokenizer,
        chosen.train.seed,
        task=chosen.task,
        only=only or (),
        skip=skip or (),
        progress=progress,
    )
    title = f"Findings in {file or recipe}"
    done = None if fix is None else write_fixed(spec, report, fix, chosen.train.seed, chosen.task)
    content = report.as_json() if done is None else {**report.as_json(), "fixed": done.as_json()}
    text = json.dumps(content, indent=2, ensure_ascii=False)
    if to_stdout:
        typer.echo(text)
    else:
        _show(report, rows)
        if json_file is not None:
            write_output(json_file, text + "\n")
    if html is not None:
        write_output(html, report_page(report, title))
    if done is not None:
        _show_fixed(done, f"{fix}", rows, to_stderr=to_stdout)
    worst = report.worst()
    if worst == "error" or (strict and worst == "warning"):
        raise typer.Exit(1)


def _show(report: DataReport, rows: int) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    read = " and ".join(f"{count:,} {side} rows" for side, count in report.rows_in.items())
    refused = [row for of_side in report.unreadable.values() for row in of_side]
    if refused:
        read += f", {len(refused):,} of them unreadable ({_listed(refused, rows)})"
    if not report.findings:
        console.print(f"{read or 'no rows'}: nothing was found")
        return
    for found in report.findings:
        line = Text()
        line.append(f"{found.severity:>8}", style=_COLORS[found.severity])
        line.append(f"  {found.title}", style="bold")
        line.append(f"  {found.count:,}", style="bold")
        line.append(f"  [{found.check}]", style="dim")
        console.print(line, soft_wrap=True)
        _indented(console, found.advice + (f"; --fix {found.fix}" if found.fix else ""))
        for example in found.examples:
            _indented(console, example, "dim")
        if rows and not all(row in " ".join(found.examples) for row in found.rows):
            _indented(console, f"rows {_listed(found.rows, rows)}", "dim")
    counts = [
        f"{number} {severity}{'s' if number != 1 else ''}"
        for severity in _COLORS
        if (number := sum(found.severity == severity for found in report.findings))
    ]
    console.print(f"\n{read}: {', '.join(counts)}")


def _show_fixed(done: FixReport, file: str, rows: int, *, to_stderr: bool) -> None:
    """Print what came in, what was written and what was not."""
    left = sum(map(len, done.left_out.values()))
    typer.echo(
        f"{file}: {done.rows_in:,} rows read, {done.rows_out:,} written, {left:,} left out",
        err=to_stderr,
    )
    for reason, of_reason in done.left_out.items():
        listed = _listed(of_reason, rows)
        typer.echo(f"  left out, {reason}: {len(of_reason):,} ({listed})", err=to_stderr)
    if done.repaired:
        listed = _listed(done.repaired, rows)
        typer.echo(
            f"  rows whose characters were put right: {len(done.repaired):,} ({listed})",
            err=to_stderr,
        )


def _listed(origins: list[str], most: int) -> str:
    more = len(origins) - most
    return ", ".join(origins[:most]) + (f" and {more:,} more" if more > 0 else "")


def _indented(console: object, text: str, style: str = "") -> None:
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    assert isinstance(console, Console)
    visible = "".join(c if c.isprintable() else f"<{ord(c):x}>" for c in text)
    console.print(Padding(Text(visible, style=style), (0, 0, 0, 10)))
