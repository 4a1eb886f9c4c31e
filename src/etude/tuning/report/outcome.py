"""What a finished run prints: figures before and after, samples, where to look further."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from etude.core import units as q
from etude.tuning.runs.folder import RunFolder


def print_outcome(path: Path, *, show: int, console: Console | None = None) -> None:
    """Print a finished run: its samples first, the figures last, where the eye is.

    Args:
        path: the run's folder.
        show: samples to print, the first of the held-out ones.
        console: where to print; standard output where None.
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
    before, after = summary["eval_loss_before"], summary["eval_loss"]
    table.add_row("evaluation loss", q.loss(before), q.loss(after), q.change(before, after))
    if (right := summary.get("accuracy")) is not None:
        right_before = summary["accuracy_before"]
        gain = f"{q.signed(100 * (right - right_before), 1)} points"
        table.add_row("preferences right", q.percent(right_before), q.percent(right), gain)
        margins = summary["margin_before"], summary["margin"]
        table.add_row("reward margin", *map(q.loss, margins), q.signed(margins[1] - margins[0], 3))
    if summary["rouge"] is not None:
        rouge_before, rouge = summary["rouge_before"], summary["rouge"]
        table.add_row(
            "ROUGE-L", q.points(rouge_before), q.points(rouge), q.signed(rouge - rouge_before, 1)
        )
    console.print(table)
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


def print_comparison(table: Sequence[Mapping[str, Any]], *, console: Console | None = None) -> None:
    """Print methods side by side; `table` is what `compare_methods` returns."""
    console = console or Console(highlight=False)
    shown = Table(title="Side by side, the same data", title_justify="left")
    shown.add_column("")
    for row in table:
        shown.add_column(q.METHODS[row["method"]], justify="right")
    formats: list[tuple[str, str, Callable[[float | None], str]]] = [
        ("loss before", "eval_loss_before", q.loss),
        ("loss after", "eval_loss", q.loss),
        ("ROUGE-L before", "rouge_before", q.points),
        ("ROUGE-L after", "rouge", q.points),
        ("training time", "seconds", q.duration),
        ("tokens/s", "tokens_per_s", q.number),
        ("peak memory", "peak_rss", q.size),
        ("weights in memory", "weight_bytes", q.size),
        ("bytes saved on disk", "saved_bytes", q.size),
    ]
    for label, key, write in formats:
        shown.add_row(label, *(write(row.get(key)) for row in table))
    console.print(shown)


def _print_sample(console: Console, number: int, sample: dict[str, Any]) -> None:
    console.rule(f"held-out sample {number}: {escape(sample['origin'])}", align="left")
    prompt = sample["prompt"].strip().splitlines()
    shown = prompt[:14] + ([f"… {len(prompt) - 14} more lines"] if len(prompt) > 14 else [])
    console.print(escape("\n".join(shown)), style="dim", soft_wrap=True)
    for label, key in (("reference", "reference"), ("before", "before"), ("after", "after")):
        style = "bold" if key == "after" else ""
        console.print(f"[cyan]{label:>9}[/]  {escape(sample[key])}", style=style, soft_wrap=True)
