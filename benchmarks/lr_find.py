"""How near does the range test's proposal come to the best of a sweep of learning rates?

    python benchmarks/lr_find.py [--only NAME] [--seeds N] [--steps N] [--json FILE]

For each of three tasks on public data (`$ETUDE_DATA`, see `benchmarks/task_data.py`): `etude
lr-find` proposes a rate; the recipe is then trained at nine rates, a factor √10 apart, and at the
proposal, all with the same seed, steps and evaluation. Printed are the held-out loss at each rate
and how far above the best of the nine the proposal's is. The promise is at most 2 %; exit code 1 if
a task misses it. About an hour on two cores; `--only sst2 --steps 20` is a quick look, whose runs
are too short to judge by.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etude.app.lr_find import ADAPTER_RATES
from etude.core.progress import SilentProgress
from etude.tuning.callbacks import Callback
from etude.tuning.config.recipe import Recipe
from etude.tuning.lr_find import find_learning_rate
from etude.tuning.pipeline import tune
from etude.tuning.runs.environment import environment
from task_data import REPOSITORY, prepare

RATES = [10 ** (power / 2) for power in range(-9, 0)]
"""3.2e-5 to 3.2e-1."""

PROMISE = 0.02


@dataclass(frozen=True)
class Task:
    """A recipe and the data that it is trained on."""

    name: str
    recipe: str
    data: str | None
    held_out: str
    changes: tuple[str, ...]


TASKS = (
    Task("docstrings", "docstrings", None, "", ("train.max_minutes=null",)),
    Task(
        "sst2", "text-classification", "sst2", "test", ("data.max_train=1500", "data.max_eval=500")
    ),
    Task(
        "banking77", "banking77", "banking77", "test", ("data.max_train=3000", "data.max_eval=1000")
    ),
)


def recipe_of(task: Task, steps: int) -> Recipe:
    """Return a task's recipe for runs of `steps` steps."""
    changes = [*task.changes, f"train.max_steps={steps}", "train.epochs=50", "eval.generate=0"]
    if task.data is not None:
        files = prepare(task.data, REPOSITORY / "build" / "tasks" / "data")
        changes += [
            f"data.train={files / 'train.jsonl'}",
            f"data.eval={files / f'{task.held_out}.jsonl'}",
        ]
    return Recipe.read(task.recipe, [*changes, "quant.kind=none"])


def trained(recipe: Recipe, rate: float, seed: int) -> float:
    """Return the held-out loss of a run at one rate; infinite where it diverged."""
    train = recipe.train.model_copy(update={"lr": rate, "seed": seed})
    with tempfile.TemporaryDirectory() as aside:
        try:
            run = tune(recipe.model_copy(update={"train": train}), base=aside)
        except Exception as error:
            print(f"  {rate:.2e}: {error}", file=sys.stderr)
            return float("inf")
    # Where training ended far above where it began, the weights before it were restored.
    return float(run.summary.get("eval_loss_ended", run.summary["eval_loss"]))


def measured(task: Task, steps: int, seeds: int) -> dict[str, Any]:
    """Return the proposal, and the mean loss over the seeds at it and at each rate."""
    recipe = recipe_of(task, steps)
    found = find_learning_rate(
        recipe,
        low=ADAPTER_RATES[0],
        high=ADAPTER_RATES[1],
        steps=100,
        base=Path("runs"),
        callbacks=Callback(),
        progress=SilentProgress(),
    )

    def mean(rate: float) -> float:
        return statistics.mean(trained(recipe, rate, seed) for seed in range(seeds))

    sweep = {f"{rate:.2e}": mean(rate) for rate in RATES}
    best = min(sweep.values())
    own = mean(found.proposal)
    low, high = found.flat
    return {
        "task": task.name,
        "proposal": found.proposal,
        "flat": [low, high],
        "loss": own,
        "sweep": sweep,
        "above_best": own / best - 1,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=[task.name for task in TASKS])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = [
        measured(task, options.steps, options.seeds)
        for task in TASKS
        if options.only in (None, task.name)
    ]
    for row in rows:
        print(
            f"{row['task']}: proposal {row['proposal']:.1e}, loss {row['loss']:.4f}, "
            f"{100 * row['above_best']:+.1f} % of the best of nine"
        )
        for rate, loss in row["sweep"].items():
            print(f"    {rate}  {loss:.4f}")
    if options.json is not None:
        content = {"environment": environment(), "steps": options.steps, "rows": rows}
        options.json.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    sys.exit(any(row["above_best"] > PROMISE for row in rows))


if __name__ == "__main__":
    main()
