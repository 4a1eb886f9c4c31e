"""Contents of the report: texts and tables, without their presentation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from etude.core import units as q
from etude.tuning.metrics.metric import ROUGE_L, Metric, metrics_of
from etude.tuning.report.series import Series, series
from etude.tuning.report.shared_words import shared_words
from etude.tuning.report.summary import (
    Module,
    RunResult,
    SampleRecord,
    Summary,
    memory_by_method,
    memory_estimate,
)
from etude.tuning.runs.folder import RunFolder


@dataclass(frozen=True)
class Figure:
    """One headline figure."""

    label: str
    value: str
    note: str = ""
    before: str = ""
    change: str = ""
    better: bool = True


def lede(summary: Summary) -> str:
    """Return a summary of the run in two sentences; empty before it has finished."""
    if "eval_loss" not in summary or "eval_loss_before" not in summary:
        return ""
    method = q.METHODS.get(summary.get("method", ""), summary.get("method", ""))
    before, after = summary["eval_loss_before"], summary["eval_loss"]
    said = f"{summary.get('model', 'The model')}, tuned by {method}" + (
        f" in {q.duration(summary['train_seconds'])}." if "train_seconds" in summary else "."
    )
    if after == before:
        said += f" Loss on held-out samples is {q.loss(after)}, as before"
    else:
        verb = "fell" if after < before else "rose"
        said += f" Loss on held-out samples {verb} from {q.loss(before)} to {q.loss(after)}"
    for metric in metrics_of(summary, "")[1:2]:
        value, value_before = figure(summary, metric.name), figure(summary, f"{metric.name}_before")
        if value is not None and value_before is not None:
            if metric.text(value) == metric.text(value_before):
                said += f", {metric.title} is {metric.text(value)}, as before"
            else:
                verb = "rose" if value > value_before else "fell"
                said += f", {metric.title} {verb} from {metric.text(value_before)} to "
                said += metric.text(value)
    return said + "."


def banner(folder: RunFolder, records: Sequence[dict[str, Any]], verdict: str = "") -> str:
    """Return a notice about an unfinished run, or one that ended worse than it began."""
    state, detail = folder.state, str(folder.state_record().get("detail") or "")
    if state == "finished":
        return sentence(verdict) if verdict else ""
    step = max((int(record.get("step", 0)) for record in records), default=0)
    total = max((int(record.get("total_steps", 0)) for record in records), default=0)
    reached = f"step {step:,} of {total:,}" if total else f"step {step:,}"
    why = f" ({detail})" if detail else ""
    return {
        "queued": f"This run waits in the queue{why}.",
        "starting": "This run is loading its model and its data.",
        "running": f"This run is still in progress: figures up to {reached}.",
        "stopping": f"This run is stopping: figures up to {reached}.",
        "stopped": f"This run was stopped at {reached}{why}; it can be resumed.",
        "killed": f"This run was killed after {reached}; it can be resumed from its checkpoint.",
        "diverged": f"This run diverged after {reached}{why}.",
        "failed": f"This run failed after {reached}{why}.",
    }[state]


def sentence(text: str) -> str:
    """Return a message as a sentence: a capital letter first, a full stop last."""
    return f"{text[:1].upper()}{text[1:]}."


def headline(summary: Summary, records: Sequence[dict[str, Any]]) -> list[Figure]:
    """Return the known headline figures."""
    figures: list[Figure] = []
    for metric in metrics_of(summary, loss_unit(summary, records)):
        before, after = figure(summary, f"{metric.name}_before"), figure(summary, metric.name)
        if after is None:
            continue
        figures.append(
            Figure(
                metric.title[:1].upper() + metric.title[1:],
                metric.text(after),
                _with_error(metric, summary),
                before="" if before is None else metric.text(before),
                change="" if before is None else metric.change(before, after),
                better=before is None or metric.better(after, before),
            )
        )
    if (trainable := summary.get("trainable_parameters")) is not None:
        total = summary.get("total_parameters")
        share = f"{q.percent(trainable / total)} of {q.short_number(total)}" if total else ""
        saved = summary.get("saved_bytes")
        note = ", ".join(filter(None, [share, f"{q.size(saved)} on disk" if saved else ""]))
        figures.append(Figure("Trainable parameters", q.short_number(trainable), note))
    if (speed := summary.get("tokens_per_s")) is not None:
        tokens = summary.get("tokens")
        note = f"{q.number(tokens)} tokens in total" if tokens else ""
        figures.append(Figure("Tokens per second", q.number(speed), note))
    if (peak := summary.get("peak_rss")) is not None:
        weights = summary.get("weight_bytes")
        note = f"{q.size(weights)} of it for the base's weights" if weights else ""
        figures.append(Figure("Peak memory", q.size(peak), note))
    if (peak := summary.get("peak_gpu_memory")) is not None:
        figures.append(Figure("Peak GPU memory", q.size(peak), "of tensors"))
    if (seconds := summary.get("train_seconds")) is not None:
        total_seconds, steps = summary.get("total_seconds"), summary.get("steps")
        notes = [
            f"{q.number(steps)} steps" if steps else "",
            f"{q.duration(total_seconds)} with loading and evaluation" if total_seconds else "",
        ]
        figures.append(Figure("Training time", q.duration(seconds), ", ".join(filter(None, notes))))
    return figures or _running_figures(records)


def _with_error(metric: Metric, summary: Summary) -> str:
    """Return a metric's note, with its standard error over the evaluation samples if known."""
    error = metric.error_text(summary.get("standard_errors", {}).get(metric.name))
    return ", ".join(filter(None, [metric.note, f"standard error {error}" if error else ""]))


def loss_unit(summary: Summary, records: Sequence[dict[str, Any]]) -> str:
    """Return the unit of a run's losses; unknown for an unfinished preference run."""
    preferences = any("accuracy" in record for record in records)
    return summary.get("loss_unit", "" if preferences else "nats per trained token")


def _running_figures(records: Sequence[dict[str, Any]]) -> list[Figure]:
    """Return the figures known before a run has its summary."""
    figures: list[Figure] = []
    unit = loss_unit({}, records)
    for key, label, written, note in (
        ("loss", "Training loss", q.loss, unit),
        ("eval_loss", "Evaluation loss", q.loss, unit),
        ("tokens_per_s", "Tokens per second", q.number, ""),
        ("rss", "Memory", q.size, ""),
        ("seconds", "Training time", q.duration, ""),
    ):
        if known := series(records, key).finite:
            figures.append(Figure(label, written(known[-1]), note))
    return figures


def evaluation_losses(records: Sequence[dict[str, Any]], summary: Summary) -> Series:
    """Return the evaluation loss over the steps, including those before and after training.

    A run without evaluations during training has these two in its summary only.
    """
    ends: list[dict[str, Any]] = []
    if (before := summary.get("eval_loss_before")) is not None:
        ends.append({"step": 0, "eval_loss": before})
    if (after := summary.get("eval_loss")) is not None and "steps" in summary:
        ends.append({"step": summary["steps"], "eval_loss": after})
    return series([*ends, *records], "eval_loss")


def sample_view(record: SampleRecord, number: int, score: Metric) -> dict[str, Any]:
    """Return one evaluation sample for the page."""
    reference = record.get("reference", "")
    before, after = _scores(record)
    marked = score.name == ROUGE_L.name
    return {
        "number": number,
        "origin": record.get("origin", ""),
        "prompt": record.get("prompt", ""),
        "reference": reference,
        "before": _pieces(reference, record.get("before", ""), marked=marked),
        "after": _pieces(reference, record.get("after", ""), marked=marked),
        "score": score.title,
        "score_before": score.text(before),
        "score_after": "" if after is None else score.text(after),
    }


def _pieces(reference: str, answer: str, *, marked: bool) -> list[tuple[str, bool]]:
    """Split an answer into pieces, marking those that count for ROUGE-L."""
    return shared_words(reference, answer) if marked else [(answer, False)]


def _scores(record: SampleRecord) -> tuple[float | None, float | None]:
    """Return a sample's scores; version 0.1.0 called them `rouge_before` and `rouge_after`."""
    fields: dict[str, Any] = dict(record)
    before = fields.get("score_before", fields.get("rouge_before"))
    return before, fields.get("score_after", fields.get("rouge_after"))


def tally(samples: Sequence[SampleRecord], score: Metric) -> dict[str, Any] | None:
    """Count the samples whose score rose, stayed and fell; None without scores."""
    changes: list[float] = []
    for record in samples:
        before, after = _scores(record)
        if before is not None and after is not None:
            changes.append(after - before)
    if not changes:
        return None
    sign = 1 if score.higher_is_better else -1
    better = sum(sign * change > 0 for change in changes)
    worse = sum(sign * change < 0 for change in changes)
    return {
        "better": better,
        "same": len(changes) - better - worse,
        "worse": worse,
        "total": len(changes),
        "score": score.title,
        "words_marked": score.name == ROUGE_L.name,
    }


def module_groups(modules: Sequence[Module]) -> dict[str, Any] | None:
    """Group the adapted modules by their last name and shape, in the model's order."""
    if not modules:
        return None
    groups: dict[tuple[str, int, int, int], list[Module]] = defaultdict(list)
    for module in modules:
        kind = module["name"].rpartition(".")[2]
        shape = (module["out_features"], module["in_features"])
        groups[kind, *shape, module["rank"]].append(module)
    total = sum(module["parameters"] for module in modules)
    return {
        "count": q.number(len(modules)),
        "parameters": q.number(total),
        "names": [module["name"] for module in modules],
        "groups": [
            {
                "kind": kind,
                "count": q.number(len(members)),
                "shape": f"{out_features:,} × {in_features:,}",
                "rank": q.number(rank) if rank else "none",
                "parameters": q.number(parameters := sum(m["parameters"] for m in members)),
                "share": f"{100 * parameters / total:.1f} %" if total else q.UNKNOWN,
            }
            for (kind, out_features, in_features, rank), members in groups.items()
        ],
    }


def memory_rows(summary: Summary) -> dict[str, Any] | None:
    """Return the estimated memory by method, with each part's share of the largest total."""
    records = memory_by_method(summary)
    if not records:
        return None
    largest = max(record["total"] for record in records) or 1
    peak, own = summary.get("peak_rss"), memory_estimate(summary)
    parts = list(records[0]["parts"])
    return {
        "measured": q.size(peak) if peak is not None else "",
        "estimated": q.size(own["total"]) if own else "",
        "whole_process": "process" in parts,
        "parts": [(part, _PART_TITLES.get(part, part)) for part in parts],
        "rows": [
            {
                "method": q.METHODS.get(record["method"], record["method"]),
                "sizes": [q.size(record["parts"][part]) for part in parts],
                "total": q.size(record["total"]),
                "bar": [(part, 100 * record["parts"][part] / largest) for part in parts],
            }
            for record in records
        ],
    }


_PART_TITLES = {"optimizer": "optimiser"}


@dataclass(frozen=True)
class Column:
    """One figure for comparison across runs."""

    key: str
    title: str
    text: Callable[[float | None], str]
    higher_is_better: bool


RESOURCES = (
    Column("seconds", "time", q.duration, higher_is_better=False),
    Column("tokens_per_s", "tokens/s", q.number, higher_is_better=True),
    Column("peak_rss", "peak memory", q.size, higher_is_better=False),
    Column("weight_bytes", "weights", q.size, higher_is_better=False),
    Column("saved_bytes", "saved", q.size, higher_is_better=False),
)
"""Figures that every run has, whatever its task."""


def compared_metrics(outcomes: Sequence[RunResult]) -> list[Metric]:
    """Return the metrics of any of the runs, each once; the loss first."""
    found = [metric for row in outcomes for metric in metrics_of(row, "")]
    return list({metric.name: metric for metric in found}.values())


def comparison(outcomes: Sequence[RunResult], *, rank: bool = True) -> dict[str, Any] | None:
    """Return a comparison table, marking the best figure of each column.

    Args:
        outcomes: one per row, named by its `method`.
        rank: whether to mark the best; stopped runs cannot be ranked.
    """
    if not outcomes:
        return None
    columns = [
        Column(m.name, "loss" if m.name == "eval_loss" else m.title, m.text, m.higher_is_better)
        for m in compared_metrics(outcomes)
    ]
    columns += [c for c in RESOURCES if any(row.get(c.key) is not None for row in outcomes)]
    best: dict[str, float] = {}
    for column in columns:
        known = [value for row in outcomes if (value := figure(row, column.key)) is not None]
        # If all are equal, none is the best.
        if rank and len(set(known)) > 1:
            best[column.key] = max(known) if column.higher_is_better else min(known)
    return {
        "columns": [column.title for column in columns],
        "rows": [
            {
                "method": q.METHODS.get(row.get("method", ""), row.get("method", "")),
                "cells": [
                    (column.text(value), value is not None and value == best.get(column.key))
                    for column in columns
                    for value in [figure(row, column.key)]
                ],
            }
            for row in outcomes
        ],
    }


def figure(row: Mapping[str, Any], key: str) -> float | None:
    """Return a figure of a summary; None if unknown."""
    value: float | None = row.get(key)
    return value


def environment_facts(environment: dict[str, Any]) -> list[tuple[str, str]]:
    """Return environment.json as labels and values, without empty ones."""
    facts: list[tuple[str, str]] = []
    for key, value in environment.items():
        if value is None or value == []:
            continue
        label = key.replace("_", " ")
        if key == "git":
            commit = str(value)
            facts.append(("commit", commit[:12] + (", modified" if commit[-1] == "+" else "")))
        elif key.startswith("memory") and isinstance(value, int):
            facts.append((label, q.size(value)))
        elif isinstance(value, list):
            facts.append((label, ", ".join(map(str, value))))  # pyright: ignore[reportUnknownArgumentType]
        else:
            facts.append((label, str(value)))
    return facts
