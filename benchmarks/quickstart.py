"""Does the quickstart keep its promises, and what do its three modes cost?

    python benchmarks/quickstart.py [--repeats N] [--only qlora] [--json FILE]

Runs recipes/docstrings.yaml by QLoRA, LoRA and full fine-tuning through the command line, each in
a process of its own, one after the other, and reads what the run wrote in its summary. Three
promises are checked, on QLoRA, which is what `make quickstart` runs: training in under 6 minutes
on 2 cores, evaluation loss at least 18 % lower, ROUGE-L at least 5 points higher.

The recipe plans its steps by time, so on a slow or busy machine it trains fewer of them; the
table says how many. Exit code 1 if a promise is broken.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from etude.core.machine import this_machine
from etude.tuning.runs.environment import environment

REPOSITORY = Path(__file__).resolve().parent.parent
METHODS = ("qlora", "lora", "full")

Summary = dict[str, Any]


def run(method: str, options: argparse.Namespace) -> Summary:
    """Run the recipe by one method and return its summary."""
    command = [sys.executable, "-m", "etude", "tune", str(options.recipe)]
    command += ["--method", method, "--runs", str(options.work), "--json"]
    for override in options.set:
        command += ["--set", override]
    try:
        answer = subprocess.run(
            command, check=False, stdout=subprocess.PIPE, text=True, timeout=60 * options.limit
        )
    except subprocess.TimeoutExpired:
        sys.exit(f"{method} took over {options.limit:g} minutes; its run is in {options.work}")
    if answer.returncode != 0:
        sys.exit(f"{method} failed (exit code {answer.returncode}): {' '.join(command)}")
    return json.loads(answer.stdout)


def loss_fall(summary: Summary) -> float:
    """Return by how many percent the evaluation loss fell."""
    return 100 * (1 - summary["eval_loss"] / summary["eval_loss_before"])


def rouge_rise(summary: Summary) -> float:
    """Return by how many points (0 to 100) ROUGE-L rose."""
    return rouge(summary, "rouge") - rouge(summary, "rouge_before")


def rouge(summary: Summary, key: str) -> float:
    """Return a ROUGE-L, not a number where `--set eval.generate=0` asked for none."""
    return math.nan if summary[key] is None else summary[key]


Figure = Callable[[Summary], float]

FIGURES: list[tuple[str, str, Figure]] = [
    ("evaluation loss before", "{:.3f}", lambda s: s["eval_loss_before"]),
    ("evaluation loss after", "{:.3f}", lambda s: s["eval_loss"]),
    ("  fall, %", "{:.1f}", loss_fall),
    ("ROUGE-L before", "{:.1f}", lambda s: rouge(s, "rouge_before")),
    ("ROUGE-L after", "{:.1f}", lambda s: rouge(s, "rouge")),
    ("  rise, points", "{:.1f}", rouge_rise),
    ("optimiser steps", "{:.0f}", lambda s: s["steps"]),
    ("training, s", "{:.0f}", lambda s: s["train_seconds"]),
    ("total, s", "{:.0f}", lambda s: s["total_seconds"]),
    ("tokens/s", "{:,.0f}", lambda s: s["tokens_per_s"]),
    ("peak memory, MiB", "{:,.0f}", lambda s: s["peak_rss"] / 2**20),
    ("weights in memory, MiB", "{:,.0f}", lambda s: s["weight_bytes"] / 2**20),
    ("saved, MiB", "{:,.1f}", lambda s: s["saved_bytes"] / 2**20),
    ("trainable parameters", "{:,.0f}", lambda s: s["trainable_parameters"]),
]

PROMISES: list[tuple[str, str, Figure, Callable[[float], bool]]] = [
    ("training under 6 minutes", "{:.0f} s", lambda s: s["train_seconds"], lambda v: v < 360),
    ("evaluation loss at least 18 % lower", "{:.1f} %", loss_fall, lambda v: v >= 18),
    ("ROUGE-L at least 5 points higher", "{:.1f} points", rouge_rise, lambda v: v >= 5),
]


def print_table(summaries: dict[str, list[Summary]]) -> None:
    """Print the medians, a column a method, with the extremes where a method ran more than once."""
    print(f"\n{'median':<24}" + "".join(f"{method:>26}" for method in summaries))
    for label, layout, figure in FIGURES:
        cells: list[str] = []
        for runs in summaries.values():
            values = sorted(figure(summary) for summary in runs)
            text = layout.format(statistics.median(values))
            if len(values) > 1:
                text += f" ({layout.format(values[0])} to {layout.format(values[-1])})"
            cells.append(text)
        print(f"{label:<24}" + "".join(f"{cell:>26}" for cell in cells))


def check(runs: list[Summary]) -> dict[str, bool]:
    """Print whether each promise holds in every run; return the answers."""
    kept: dict[str, bool] = {}
    print()
    for promise, layout, figure, holds in PROMISES:
        values = [figure(summary) for summary in runs]
        kept[promise] = all(holds(value) for value in values)
        shown = ", ".join(layout.format(value) for value in values)
        print(f"{'kept' if kept[promise] else 'BROKEN':<7} {promise}: {shown}")
    return kept


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--only", choices=METHODS, help="one method instead of all three")
    add("--repeats", type=int, default=1, help="runs a method (1)")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="change the recipe")
    add("--limit", type=float, default=30.0, help="minutes that one run may take (30)")
    add("--recipe", type=Path, default=REPOSITORY / "recipes" / "docstrings.yaml")
    add("--work", type=Path, default=REPOSITORY / "build" / "quickstart", help="runs go here")
    add("--json", type=Path, metavar="FILE", help="write all summaries here")
    options = parser.parse_args()
    if options.repeats < 1:
        parser.error("--repeats must be at least 1")
    return options


def main() -> None:
    options = parse()
    machine = environment()
    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"note: something else runs here (load {load:.1f}); times will be off")
    print(
        f"{machine['processor']}, {this_machine().physical_cores} cores, torch {machine['torch']}, "
        f"{', '.join(machine['instruction_sets'])}",
        flush=True,
    )
    methods = [options.only] if options.only else list(METHODS)
    summaries: dict[str, list[Summary]] = {method: [] for method in methods}
    for _ in range(options.repeats):
        for method in methods:
            summary = run(method, options)
            summaries[method].append(summary)
            print(f"  {method}: {summary['total_seconds']:.0f} s", flush=True)
    print_table(summaries)
    kept = check(summaries["qlora"]) if "qlora" in summaries else {}
    if options.json:
        content = {"environment": machine, "promises": kept, "runs": summaries}
        options.json.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    sys.exit(0 if all(kept.values()) else 1)


if __name__ == "__main__":
    main()
