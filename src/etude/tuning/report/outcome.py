"""Terminal summary of a finished run: samples, figures before and after, file paths."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from etude.core import units as q
from etude.tuning.metrics.metric import Metric, metrics_of
from etude.tuning.report.details.baselines import baseline_lines
from etude.tuning.report.details.generation import beside
from etude.tuning.report.sections import RESOURCES, compared_metrics, figure, sentence
from etude.tuning.report.summary import RunResult
from etude.tuning.runs.folder import RunFolder


def print_outcome(path: Path, *, show: int, console: Console | None = None) -> None:
    """Print a finished run: samples first, figures last.

    Args:
        path: the run's folder.
        show: number of held-out samples to print.
        console: output console; None: standard output.
    """
    console = console or Console(highlight=False)
    folder = RunFolder.open(path)
    summary: dict[str, Any] = folder.read_json("summary.json")
    for number, sample in enumerate(folder.read_samples()[:show], start=1):
        _print_sample(console, number, sample)
    table = Table(
        title=f"{q.METHODS[summary['method']]} of {summary['model']}", title_justify="left"
    )
    table.add_column("")
    for column in ("before", "after", "change"):
        table.add_column(column, justify="right")
    for metric in metrics_of(summary, ""):
        before, after = summary.get(f"{metric.name}_before"), summary.get(metric.name)
        error = metric.error_text(summary.get("standard_errors", {}).get(metric.name))
        shown = f"{metric.text(after)} {error}".strip()
        table.add_row(metric.title, metric.text(before), shown, _change(metric, before, after))
    console.print(table)
    if complaint := summary.get("verdict"):
        console.print(escape(sentence(complaint)), style="bold red", soft_wrap=True)
    details: dict[str, Any] = folder.read_json(folder.details.name) or {}
    for line in beside(details):
        console.print(escape(line), soft_wrap=True)
    if "baselines" in details:
        for label, text in baseline_lines(details["baselines"]):
            console.print(f"{label:>12}  {escape(text)}", soft_wrap=True)
    trained = summary["trainable_parameters"]
    for label, text in (
        ("trained", f"{trained:,} parameters, {q.percent(summary['trainable_share'])}"),
        ("speed", f"{q.number(summary['tokens_per_s'])} tokens/s"),
        ("time", f"{q.duration(summary['train_seconds'])} of training, {summary['steps']} steps"),
        ("peak memory", q.size(summary["peak_rss"])),
        ("saved", f"{q.size(summary['saved_bytes'])} in {path}"),
        ("report", str(folder.report)),
    ):
        console.print(f"{label:>12}  {escape(text)}", soft_wrap=True)


def print_comparison(table: Sequence[RunResult], *, console: Console | None = None) -> None:
    """Print a comparison of methods; `table` is the result of `compare_methods`."""
    console = console or Console(highlight=False)
    shown = Table(title="Comparison on the same data", title_justify="left")
    shown.add_column("")
    for row in table:
        shown.add_column(q.METHODS[row.get("method", "")], justify="right")
    for metric in compared_metrics(table):
        title = "loss" if metric.name == "eval_loss" else metric.title
        for when, key in (("before", f"{metric.name}_before"), ("after", metric.name)):
            shown.add_row(f"{title} {when}", *(metric.text(figure(row, key)) for row in table))
    for column in RESOURCES:
        shown.add_row(column.title, *(column.text(figure(row, column.key)) for row in table))
    console.print(shown)


def _change(metric: Metric, before: float | None, after: float | None) -> str:
    change = metric.change(before, after)
    return f"{change} points" if metric.format == "percent" and change != q.UNKNOWN else change


def _print_sample(console: Console, number: int, sample: dict[str, Any]) -> None:
    console.rule(f"held-out sample {number}: {escape(sample['origin'])}", align="left")
    prompt = sample["prompt"].strip().splitlines()
    shown = prompt[:14] + ([f"… {len(prompt) - 14} more lines"] if len(prompt) > 14 else [])
    console.print(escape("\n".join(shown)), style="dim", soft_wrap=True)
    for label, key in (("reference", "reference"), ("before", "before"), ("after", "after")):
        style = "bold" if key == "after" else ""
        console.print(f"[cyan]{label:>9}[/]  {escape(sample[key])}", style=style, soft_wrap=True)
