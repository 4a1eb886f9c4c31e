"""What does each optimiser keep, what does its step cost, and where does training end?

    python benchmarks/optimizers.py [--steps 24] [--methods lora full] [--only adamw8bit]
                                    [--json FILE]

First the step alone: SmolLM2's matrices, 17.7 million numbers, in turns with torch.optim.AdamW;
median milliseconds, and the ratio. Then whole runs of recipes/docstrings.yaml by LoRA and full
fine-tuning, each in a process of its own, on the same rows in the same order: bytes of state,
peak memory, steps a second against AdamW's, and the evaluation loss. Lion takes a fifth of the
learning rate, since all its steps have the same size; `lora+` is AdamW with `loraplus_lr_ratio: 4`.

A step that is read from and written to a file costs what the disk and the free memory allow; the
figure is of the machine as it stands.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from etude.tuning.config.recipe import Recipe
from etude.tuning.config.sections.train import TrainSpec
from etude.tuning.optim.optimizers import make_optimizer, optimizer_figures
from etude.tuning.runs.environment import environment

REPOSITORY = Path(__file__).resolve().parent.parent

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "adamw": {},
    "adamw, paged": {"paged": True},
    "adamw8bit": {"optimizer": "adamw8bit"},
    "adamw8bit, paged": {"optimizer": "adamw8bit", "paged": True},
    "lion": {"optimizer": "lion"},
    "adafactor": {"optimizer": "adafactor"},
    "lora+": {"loraplus_lr_ratio": 4},
}

SHAPES = [(576, 576), (192, 576), (192, 576), (576, 576), *3 * [(1536, 576)]]
LAYERS = 5


def time_steps(names: list[str], repeats: int, folder: Path) -> dict[str, dict[str, float]]:
    """Return state bytes and median milliseconds of `optimizer.step()` by name, taken in turns."""
    made: dict[str, torch.optim.Optimizer] = {}
    for name in names:
        torch.manual_seed(0)
        parameters = {
            f"{i}": torch.nn.Parameter(torch.randn(shape))
            for i, shape in enumerate(LAYERS * SHAPES)
        }
        for parameter in parameters.values():
            parameter.grad = torch.randn_like(parameter)
        made[name] = make_optimizer(TrainSpec(**OPTIMIZERS[name]), parameters, folder)
        made[name].step()
    times: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(repeats):
        for name, optimizer in made.items():
            began = time.perf_counter()
            optimizer.step()
            times[name].append(1000 * (time.perf_counter() - began))
    return {
        name: {
            "milliseconds": statistics.median(times[name]),
            "state_bytes": optimizer_figures(optimizer)["optimizer_bytes"],
        }
        for name, optimizer in made.items()
    }


def whole_run(name: str, method: str, options: argparse.Namespace, runs: Path) -> dict[str, Any]:
    """Run the recipe and return its summary."""
    fields = dict(OPTIMIZERS[name])
    overrides = ["train.max_minutes=null", f"train.max_steps={options.steps}", "eval.generate=0"]
    if name == "lion":
        fields["lr"] = Recipe.read(options.recipe, options.set).train.lr / 5
    overrides += [f"train.{key}={json.dumps(value)}" for key, value in fields.items()]
    command = [sys.executable, "-m", "etude", "tune", str(options.recipe), "--method", method]
    command += ["--runs", str(runs), "--json"]
    for override in [*overrides, *options.set]:
        command += ["--set", override]
    answer = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    if answer.returncode != 0:
        sys.exit(f"{name} failed (exit code {answer.returncode}): {' '.join(command)}")
    return json.loads(answer.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--recipe", type=Path, default=REPOSITORY / "recipes" / "docstrings.yaml")
    parser.add_argument("--steps", type=int, default=24, help="optimiser steps of every run")
    parser.add_argument("--repeats", type=int, default=15, help="timed steps of the step alone")
    parser.add_argument("--methods", nargs="*", choices=["lora", "qlora", "full"])
    parser.add_argument("--only", nargs="+", choices=[*OPTIMIZERS])
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    methods = ["lora", "full"] if options.methods is None else options.methods
    # AdamW is what the others are measured against.
    names = [n for n in OPTIMIZERS if options.only is None or n in (*options.only, "adamw")]

    results: dict[str, Any] = {"steps": options.steps, "environment": environment()}
    with tempfile.TemporaryDirectory() as work:
        alone = time_steps([n for n in names if n != "lora+"], options.repeats, Path(work))
        results["alone"] = alone
        print(f"The step alone, {torch.get_num_threads()} threads")
        for name, row in alone.items():
            ratio = row["milliseconds"] / alone["adamw"]["milliseconds"]
            print(
                f"  {name:17} {row['state_bytes'] / 1e6:7.1f} MB of state "
                f"{row['milliseconds']:7.1f} ms, {ratio:.2f} of AdamW's",
                flush=True,
            )
        for method in methods:
            print(f"recipes/{options.recipe.name} by {method}, {options.steps} steps")
            rows = results[method] = {}
            for name in names:
                if name == "lora+" and method == "full":
                    continue
                summary = whole_run(name, method, options, Path(work) / "runs")
                rows[name] = {
                    "state_bytes": summary["optimizer_bytes"],
                    "peak_rss": summary["peak_rss"],
                    "steps_per_s": summary["steps"] / summary["train_seconds"],
                    "eval_loss_before": summary["eval_loss_before"],
                    "eval_loss": summary["eval_loss"],
                }
                row, first = rows[name], rows["adamw"]
                print(
                    f"  {name:17} {row['state_bytes'] / 1e6:7.1f} MB of state "
                    f"{row['peak_rss'] / 1e6:7.0f} MB at the peak "
                    f"{row['steps_per_s'] / first['steps_per_s']:5.2f} of AdamW's steps/s "
                    f"loss {row['eval_loss_before']:.4f} to {row['eval_loss']:.4f} "
                    f"({row['eval_loss'] / first['eval_loss'] - 1:+.2%})",
                    flush=True,
                )
    if options.json:
        options.json.write_text(json.dumps(results, indent=2), "utf-8")


if __name__ == "__main__":
    main()
