"""Evaluation of a finished run, on its own held-out data or on a file."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etude.core.errors import RunError
from etude.core.progress import Progress, SilentProgress
from etude.tuning.adapters.multi_adapter import adapter_disabled
from etude.tuning.artifacts import PreparedData
from etude.tuning.config.recipe import Recipe
from etude.tuning.config.sections.named_files import NamedFile
from etude.tuning.metrics.metric import PERPLEXITY, Metric, metrics_of
from etude.tuning.metrics.sampling_error import standard_errors
from etude.tuning.objectives.base import SFT, Objective
from etude.tuning.pipeline import require_effect
from etude.tuning.predictor import load
from etude.tuning.runs.folder import RunFolder
from etude.tuning.tasks.registry import task_named
from etude.tuning.training.measurement import Measurement, unchanged


@dataclass(frozen=True)
class Evaluated:
    """What was measured of a run, and on what."""

    results: dict[str, dict[str, Any]]
    """As `evaluate_run` returns them."""
    recipe: Recipe
    """Of the run."""
    data: PreparedData
    tuned: Measurement
    objective: Objective


def evaluate_run(
    folder: RunFolder,
    *,
    data: Path | Sequence[NamedFile] | None = None,
    base: bool = False,
    generate: int | None = None,
    progress: Progress | None = None,
    on_message: Callable[[str], None] | None = None,
    on_data: Callable[[PreparedData], None] | None = None,
) -> dict[str, dict[str, Any]]:
    """Evaluate a run's model, and optionally its base; return the results of `measure_run`."""
    return measure_run(
        folder,
        data=data,
        base=base,
        generate=generate,
        progress=progress,
        on_message=on_message,
        on_data=on_data,
    ).results


def measure_run(
    folder: RunFolder,
    *,
    data: Path | Sequence[NamedFile] | None = None,
    base: bool = False,
    generate: int | None = None,
    progress: Progress | None = None,
    on_message: Callable[[str], None] | None = None,
    on_data: Callable[[PreparedData], None] | None = None,
) -> Evaluated:
    """Evaluate a run's model, and optionally its base.

    Args:
        folder: a finished run.
        data: files to evaluate on, every row of them; None: the run's own held-out samples.
        base: also evaluate the model without its adapter.
        generate: answers to generate; None: the recipe's `eval.generate`.
        progress: reports every stage.
        on_message: told what the figures do not say: why samples were not packed.
        on_data: called with the samples before anything is measured on them.

    Returns:
        With `results` for `tuned` and `base`: loss, in `unit`; perplexity, where that is nats per
        trained token; the metrics of the task; `standard_errors` over the samples, by name;
        samples; a `note` if both gave the same outputs. For each extractive baseline of the recipe:
        its metrics.

    Raises:
        EtudeError: the run is not finished, or the data cannot be used.
    """
    progress = progress or SilentProgress()
    tuned = load(folder, progress=progress)
    recipe = tuned.recipe
    if generate is not None:
        recipe = recipe.model_copy(
            update={"eval": recipe.eval.model_copy(update={"generate": generate})}
        )
    if base and not tuned.adapted:
        raise RunError("full fine-tuning overwrote the base, so the run has no base to evaluate")
    loaded, task = tuned.loaded, task_named(recipe.task)
    if data is not None:
        files = [NamedFile(path=str(data))] if isinstance(data, Path) else data
        prepared = task.read_evaluation(files, loaded, recipe, progress)
    else:
        prepared = task.encode(task.read(recipe), loaded, recipe, progress)
    if on_data is not None:
        on_data(prepared)
    objective = task.evaluation_objective(recipe, prepared, folder, adapted=tuned.adapted)
    with loaded.placement.autocast_context():
        unpacked = task.layout(recipe, loaded).unpacked_because
    if unpacked is not None and on_message is not None:
        on_message(f"packing is off: {unpacked}")
    results: dict[str, dict[str, Any]] = {}
    measurements: dict[str, Measurement] = {}
    for voice in ["tuned", "base"] if base else ["tuned"]:
        silenced = adapter_disabled(loaded.model)
        with silenced if voice == "base" else nullcontext(), loaded.placement.autocast_context():
            measured = task.measure(loaded, prepared, recipe, objective, progress)
        measurements[voice] = measured
        results[voice] = {
            "loss": measured.loss,
            "unit": objective.unit,
            **_perplexity(objective, measured.loss),
            **measured.metrics,
            "standard_errors": _errors(measured),
            "samples": len(prepared.eval.samples),
        }
    if base:
        require_effect(measurements["base"], measurements["tuned"])
        if (note := unchanged(measurements["base"], measurements["tuned"])) is not None:
            results["tuned"]["note"] = note
    made: dict[str, Any] = measurements["tuned"].details.get("generation", {})
    for name, figures in made.get("baselines", {}).items():
        results[name] = {**figures, "samples": len(made["generated_tokens"])}
    beside: dict[str, Any] = measurements["tuned"].details.get("baselines", {})
    for row in beside.get("rows", [])[:-1]:
        results[row["name"]] = {**row["metrics"], "samples": len(prepared.eval.samples)}
    return Evaluated(results, recipe, prepared, measurements["tuned"], objective)


def _errors(measured: Measurement) -> dict[str, float]:
    """Return standard errors by the names of the results, of which the loss has its own."""
    found = standard_errors(measured.details, ["eval_loss", *measured.metrics])
    return {("loss" if name == "eval_loss" else name): error for name, error in found.items()}


def _perplexity(objective: Objective, loss: float) -> dict[str, float]:
    """Return the perplexity where the loss is in nats per trained token."""
    return {PERPLEXITY.name: math.exp(loss)} if isinstance(objective, SFT) else {}


def evaluated_metrics(folder: RunFolder) -> list[Metric]:
    """Return the metrics that `evaluate_run` may report, in display order."""
    summary: dict[str, Any] = folder.read_json("summary.json") or {}
    listed = metrics_of(summary, "")
    loss = Metric("loss", "loss", "loss", higher_is_better=False)
    own = ("eval_loss", PERPLEXITY.name)
    return [loss, PERPLEXITY, *(metric for metric in listed if metric.name not in own)]
