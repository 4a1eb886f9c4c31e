"""The average of several runs of one recipe, of different seeds or settings (a "model soup").

Wortsman et al. 2022: weights of runs that began at the same point can be averaged, and the average
is often better than its parts, for the cost of one model. Here the average of the changes is exact:

    ΔW = 1/n Σ ΔWᵢ = [B₁ … Bₙ] diag(sᵢ/n) [A₁; …; Aₙ]

the factors side by side, of the sum of the ranks; an SVD takes it back to any rank. The mean of the
factors themselves is not offered: (1/n Σ Bᵢ)(1/n Σ Aᵢ) is another matrix, with products BᵢAⱼ of
factors that were never trained together. Heads, which are trained whole, are averaged number by
number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from etude.core.errors import AdapterError, RunError
from etude.core.progress import Progress
from etude.tuning.adapters.combine import Combined, combine_folders
from etude.tuning.config.recipe import Recipe
from etude.tuning.data.samples import prompt_key
from etude.tuning.evaluation import Evaluated, measure_run
from etude.tuning.metrics.metric import Metric, loss_metric
from etude.tuning.metrics.sampling_error import standard_errors
from etude.tuning.report.page import write_report
from etude.tuning.report.paired import PairedTest, compare_samples
from etude.tuning.runs.folder import RunFolder
from etude.tuning.tasks.base import RECORD, TaskRecord
from etude.tuning.tasks.registry import task_named

COPIED = ("environment.json", "base.json", "data.json")
"""Files of the first run that are true of the average, too."""


@dataclass(frozen=True)
class Soup:
    """An average of runs, measured beside them on the same samples."""

    folder: RunFolder
    combined: Combined
    metric: Metric
    """What they are compared by: the first beside the loss, if there is one."""
    results: dict[str, dict[str, Any]]
    """By run, the average last; as `evaluate_run` returns them for `tuned`."""
    best: str
    """The run that is best by the metric, on these samples."""
    test: PairedTest | None
    """The average against that run; None where the task scores no single samples."""

    def value(self, name: str) -> float:
        """Return the metric of a run or of the average."""
        key = "loss" if self.metric.name == "eval_loss" else self.metric.name
        return float(self.results[name][key])

    @property
    def gain(self) -> str:
        """How the average compares, in a sentence."""
        *runs, own = self.results
        mean = sum(map(self.value, runs)) / len(runs)
        value, best = self.value(own), self.value(self.best)
        text, change = self.metric.text, self.metric.change
        return (
            f"{self.metric.title} of the average {text(value)}; of the {len(runs)} runs "
            f"{text(mean)} on average ({change(mean, value)}), {text(best)} at best "
            f"({change(best, value)}; {self.best}, chosen by these samples)"
        )


def average_runs(
    runs: Sequence[RunFolder],
    folder: RunFolder,
    *,
    rank: int | None = None,
    data: Path | None = None,
    progress: Progress | None = None,
) -> Soup:
    """Write the average of runs as a run of its own, and measure all of them.

    Args:
        runs: two or more finished runs with adapters of one base and one task.
        folder: of the average: new, and locked.
        rank: of the average, by SVD; None: the sum of the ranks, exactly.
        data: samples to measure on; None: what the first run held out.
        progress: reports every stage.

    Raises:
        AdapterError: the adapters cannot be averaged.
        RunError: the runs did not all hold out the same samples, and no others are named.
    """
    recipes = [Recipe.read_run(run.recipe) for run in runs]
    record = _common_record(runs)
    if data is None:
        _require_same_held_out(runs, recipes)
    combined = combine_folders(
        [(run.adapter, 1 / len(runs)) for run in runs],
        folder.adapter,
        method="exact" if rank is None else "svd",
        rank=rank,
        overwrite=True,
        modules=True,
    )
    record.write(folder.adapter)
    highest = combined.ranks[1]
    adapter = recipes[0].adapter.model_copy(
        update={"kind": "lora", "rank": highest, "alpha": float(highest), "init": "default"}
    )
    recipe = recipes[0].model_copy(update={"name": folder.name, "adapter": adapter})
    folder.write_text(folder.recipe.name, recipe.to_yaml())
    for name in COPIED:
        if (content := runs[0].read_json(name)) is not None:
            folder.write_json(name, content)
    measured = {run.name: measure_run(run, data=data, progress=progress) for run in runs}
    own = measure_run(folder, data=data, progress=progress)
    metric = _metric(own)
    results = {name: one.results["tuned"] for name, one in measured.items()}
    key = "loss" if metric.name == "eval_loss" else metric.name
    ranked = sorted(results, key=lambda name: results[name][key], reverse=metric.higher_is_better)
    best = ranked[0]
    samples = _samples(own)
    test = compare_samples(best, folder.name, _samples(measured[best]), samples)
    soup = Soup(
        folder, combined, metric, {**results, folder.name: own.results["tuned"]}, best, test
    )
    _write(soup, own, samples, runs)
    return soup


def _common_record(runs: Sequence[RunFolder]) -> TaskRecord:
    """Return the task and classes of all runs; thresholds, chosen for each run, are left out.

    Raises:
        AdapterError: they differ.
        RunError: a run has no adapter.
    """
    records: list[TaskRecord] = []
    for run in runs:
        if not run.adapter.is_dir():
            raise RunError(
                f"{run.path} has no adapter: only finished runs of adapters are averaged"
            )
        found = TaskRecord.read(run.adapter)
        options = {key: value for key, value in found.options.items() if key != "thresholds"}
        records.append(replace(found, options=options))
    for run, record in zip(runs, records, strict=True):
        if (record.task, record.labels) != (records[0].task, records[0].labels):
            raise AdapterError(
                f"{run.path} and {runs[0].path} differ in their task or their classes ({RECORD}), "
                "so they cannot be averaged"
            )
    return records[0]


def _require_same_held_out(runs: Sequence[RunFolder], recipes: Sequence[Recipe]) -> None:
    """Refuse runs that did not all hold out the same samples.

    Raises:
        RunError: another was trained on what the first held out, or held out others.
    """
    task = task_named(recipes[0].task)
    held = {prompt_key(sample) for sample in task.read(recipes[0]).eval}
    for run, recipe in zip(runs[1:], recipes[1:], strict=True):
        if recipe.data == recipes[0].data and (
            recipe.data.eval is not None or recipe.train.seed == recipes[0].train.seed
        ):
            continue
        if {prompt_key(sample) for sample in task.read(recipe).eval} != held:
            raise RunError(
                f"{run.path} and {runs[0].path} held out other samples, so each was trained on "
                "some that the other is measured on; name samples that none has seen by --data, "
                "and give runs of several seeds one evaluation file (data.eval)"
            )


def _metric(own: Evaluated) -> Metric:
    """Return the most telling metric: the first beside the loss, if there is one."""
    listed = task_named(own.recipe.task).metrics(own.objective)
    known = [metric for metric in listed if metric.name in own.tuned.metrics]
    return known[0] if known else loss_metric(own.objective.unit)


def _samples(one: Evaluated) -> list[dict[str, Any]]:
    task = task_named(one.recipe.task)
    return task.sample_records(one.data, one.tuned, one.tuned)


def _write(
    soup: Soup, own: Evaluated, samples: list[dict[str, Any]], runs: Sequence[RunFolder]
) -> None:
    """Write what a run's folder says of its result."""
    folder, task = soup.folder, task_named(own.recipe.task)
    first: dict[str, Any] = runs[0].read_json(runs[0].summary.name) or {}
    metrics = [loss_metric(own.objective.unit), *task.metrics(own.objective)]
    shown = [m for m in metrics if m.name == "eval_loss" or m.name in own.tuned.metrics]
    folder.write_json(folder.details.name, own.tuned.details)
    folder.write_lines(folder.samples.name, samples)
    summary = {
        "name": folder.name,
        "task": task.name,
        "method": own.recipe.method,
        "objective": own.objective.name,
        "loss_unit": own.objective.unit,
        "model": first.get("model"),
        "sample_score": task.sample_score.as_json(),
        "metrics": [metric.as_json() for metric in shown],
        "eval_loss": own.tuned.loss,
        **own.tuned.metrics,
        "standard_errors": standard_errors(own.tuned.details, [metric.name for metric in shown]),
        "saved_bytes": soup.combined.bytes,
        "average": {
            "of": [run.name for run in runs],
            "ranks": list(soup.combined.ranks),
            "results": soup.results,
            "says": soup.gain,
        },
    }
    folder.write_json(folder.summary.name, summary)
    folder.set_state("finished", f"the average of {', '.join(run.name for run in runs)}")
    write_report(folder)
