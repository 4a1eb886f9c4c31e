"""What a trial's run measured: the metrics of a search, and a trial's values by them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from etude.core.errors import RecipeError, RunError, did_you_mean
from etude.tuning.metrics.metric import Metric, loss_metric, metrics_of
from etude.tuning.runs.folder import RunFolder
from etude.tuning.search.settings import SearchSettings
from etude.tuning.search.trial import Trial, percent
from etude.tuning.training.rungs import rung_step

LOSS_TASKS = ("chat", "language-modeling")
"""Tasks that are searched by their loss unless a metric is named: others need generation."""

FIGURES = (
    "saved_bytes",
    "peak_rss",
    "peak_gpu_memory",
    "train_seconds",
    "total_seconds",
    "trainable_parameters",
    "steps",
    "method",
    "eval_loss_before",
)

BASE_KEPT = tuple(
    f"adapter.{key}"
    for key in ("rank", "alpha", "rslora", "dropout", "target_modules", "layers", "rank_pattern")
)
"""Keys of an adapter that, as those of `train`, leave the model as it is until it is trained."""

BASE_CHANGED = ("train.seed", "train.micro_tokens")
"""Keys of `train` that decide a new head, or how sums are rounded."""


def leaves_base(keys: Iterable[str]) -> bool:
    """Whether models that differ in these keys alone are the same before training."""
    return all(
        key in BASE_KEPT or (key.startswith("train.") and key not in BASE_CHANGED) for key in keys
    )


def chosen_metrics(
    named: str | None, summary: dict[str, Any], records: Sequence[dict[str, Any]]
) -> tuple[Metric, Metric]:
    """Return the metric to improve, and the one that trials are compared by at rungs.

    Raises:
        RecipeError: there is no metric of that name.
    """
    listed = metrics_of(summary, str(summary.get("loss_unit", "")))
    known = {metric.name: metric for metric in listed}
    if named is not None:
        name = "eval_loss" if named == "loss" else named
        if name not in known:
            names = ["loss", *(other for other in known if other != "eval_loss")]
            raise RecipeError(
                f"there is no metric {named!r}{did_you_mean(named, names)}; this task has "
                f"{', '.join(names)}"
            )
        metric = known[name]
    elif summary.get("task") in LOSS_TASKS or len(listed) < 2:
        metric = known.get("eval_loss", loss_metric(""))
    else:
        metric = next(one for one in listed if one.name != "eval_loss")
    measured = {key for record in records for key in record}
    if metric.name == "eval_loss" or f"eval_{metric.name}" in measured or not measured:
        return metric, metric
    return metric, known.get("eval_loss", loss_metric(""))


def measured(
    trial: Trial, folder: RunFolder, metrics: tuple[Metric, Metric], settings: SearchSettings
) -> Trial:
    """Return a trial with what its run has measured by now.

    Args:
        trial: as it was before.
        folder: of its run.
        metrics: to improve, and to compare by at rungs.
        settings: of the search.

    Raises:
        RunError: a file of the run is damaged.
    """
    metric, rung = metrics
    records = folder.read_metrics()
    rungs = rung_values(records, rung, settings.shares)
    trial = replace(trial, run=folder.path.name, rungs=rungs)
    if folder.state != "finished":
        return trial
    summary: dict[str, Any] = folder.read_json(folder.summary.name) or {}
    names = [metric.name, *settings.against]
    if missing := [name for name in names if summary.get(name) is None]:
        raise RunError(f"{folder.path}: summary.json has no {missing[0]}")
    figures = {key: summary[key] for key in FIGURES if key in summary}
    figures |= {m.name: summary.get(m.name) for m in metrics_of(summary, "")}
    return replace(
        trial,
        state="finished",
        objectives=[float(summary[name]) for name in names],
        error=summary.get("standard_errors", {}).get(metric.name),
        figures=figures,
    )


def rung_values(
    records: Sequence[dict[str, Any]], metric: Metric, shares: Sequence[float]
) -> dict[str, float]:
    """Return what a run measured at its rungs, by the percentage of its training."""
    key = metric.name if metric.name == "eval_loss" else f"eval_{metric.name}"
    values = {int(r["step"]): r[key] for r in records if r.get(key) is not None}
    totals = [int(r["total_steps"]) for r in records if "total_steps" in r]
    if not totals:
        return {}
    found: dict[str, float] = {}
    for share in shares[:-1]:
        # A plan that a time limit shortened is past a rung when it is measured.
        after = [step for step in sorted(values) if step >= rung_step(share, totals[-1])]
        if after and str(percent(share)) not in found:
            found[str(percent(share))] = float(values[after[0]])
    return found
