"""Report page of a run: `write_report`.

report.html is self-contained (see `html`). It is built from whichever of the run's files exist, so
a stopped or running run has a page as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from etude.core import units as q
from etude.tuning.metrics.metric import (
    PREFERENCE_ACCURACY,
    REWARD_MARGIN,
    metrics_of,
    sample_score,
)
from etude.tuning.metrics.smoothing import smooth
from etude.tuning.report.chart import (
    Chart,
    Line,
    decimal_tick,
    exponent_tick,
    histogram,
    line_chart,
)
from etude.tuning.report.details.registry import blocks
from etude.tuning.report.html import render_page
from etude.tuning.report.sections import (
    banner,
    comparison,
    environment_facts,
    evaluation_losses,
    headline,
    lede,
    loss_unit,
    memory_rows,
    module_groups,
    sample_view,
    tally,
)
from etude.tuning.report.series import series, smoothing
from etude.tuning.report.spans import only_token_spans
from etude.tuning.report.summary import DataFacts, SampleRecord, Summary
from etude.tuning.runs.folder import RunFolder

SAMPLES_SHOWN = 5
"""Number of samples shown initially; the rest are collapsed."""


def write_report(folder: RunFolder) -> Path:
    """Write `report.html` of a run and return its path.

    Raises:
        RunError: a file of the run is damaged, or the page cannot be written.
    """
    folder.write_text(folder.report.name, render(folder))
    return folder.report


def render(folder: RunFolder) -> str:
    """Return the page of a run. Raises RunError if a file of the run is damaged."""
    summary = cast("Summary", folder.read_json(folder.summary.name) or {})
    data = cast("DataFacts", folder.read_json(folder.data.name) or {})
    records = folder.read_metrics()
    samples = cast("list[SampleRecord]", folder.read_samples())
    length, score = data.get("length_histogram"), sample_score(summary)
    content: dict[str, Any] = {
        "name": folder.name,
        "lede": lede(summary),
        "banner": banner(folder, records, summary.get("verdict", "")),
        "figures": headline(summary, records),
        "charts": training_charts(records, summary),
        "optimization": list(summary.get("optimization", {}).items()),
        "results": blocks(_details(folder), summary),
        "samples": [sample_view(record, index + 1, score) for index, record in enumerate(samples)],
        "shown": SAMPLES_SHOWN,
        "tally": tally(samples, score),
        "lengths": histogram("lengths", "Sample length", **length, unit="tokens")
        if length
        else None,
        "totals": [
            (label, value if isinstance(value, str) else q.number(value))
            for label, value in data.get("totals", {}).items()
        ],
        "notes": data.get("notes", []),
        "token_sample": only_token_spans(data.get("sample_html", "")),
        "modules": module_groups(summary.get("adapted_modules", [])),
        "memory": memory_rows(summary),
        "compare": comparison(summary.get("compare", [])),
        "environment": environment_facts(folder.read_json(folder.environment.name) or {}),
        "recipe": _text(folder.recipe),
        "kind": "Fine-tuning run",
        "source": "the files of this run",
    }
    content["sections"] = _sections(content)
    return render_page("report.html", content)


def _details(folder: RunFolder) -> dict[str, Any]:
    """Return the results of the task, and what was measured of the run afterwards."""
    details: dict[str, Any] = folder.read_json(folder.details.name) or {}
    forgotten = folder.read_json("forgetting.json")
    tested = folder.read_json(folder.test.name)
    return {
        **details,
        **({"forgetting": forgotten} if forgotten else {}),
        **({"final_test": tested} if tested else {}),
    }


def training_charts(records: Sequence[dict[str, Any]], summary: Summary) -> list[Chart]:
    """Draw loss, learning rate, gradient norm, speed and memory over steps."""
    train, held_out = series(records, "loss"), evaluation_losses(records, summary)
    smoothed = smooth(train.values, smoothing(len(train.steps)))
    charts = [
        line_chart(
            "loss",
            "Loss",
            [
                Line("train", "raw", train.steps, train.values, q.loss),
                Line("smoothed", "main", train.steps, smoothed, q.loss),
                Line("evaluation", "dots", held_out.steps, held_out.values, q.loss),
            ],
            unit=loss_unit(summary, records),
            tick=decimal_tick,
            log_scale=True,
        ),
        *_metric_charts(records, summary),
    ]
    for key, title, unit, written, tick, log_scale, scale in (
        ("lr", "Learning rate", "per optimiser step", q.rate, exponent_tick, False, 1.0),
        ("grad_norm", "Gradient norm", "before clipping", q.loss, decimal_tick, True, 1.0),
        ("tokens_per_s", "Speed", "tokens per second", q.number, decimal_tick, False, 1.0),
        ("rss", "Memory", "GB, resident", _gigabytes, decimal_tick, False, 1e-9),
    ):
        values = series(records, key)
        scaled = [None if value is None else value * scale for value in values.values]
        charts.append(
            line_chart(
                key.replace("_", "-"),
                title,
                [Line(title.lower(), "main", values.steps, scaled, written)],
                unit=unit,
                tick=tick,
                from_zero=True,
                log_scale=log_scale,
            )
        )
    return [chart for chart in charts if chart is not None]


def _metric_charts(records: Sequence[dict[str, Any]], summary: Summary) -> list[Chart | None]:
    """Draw the metrics recorded during training, beside the loss."""
    charts: list[Chart | None] = []
    listed = metrics_of(summary, "") if summary else [PREFERENCE_ACCURACY, REWARD_MARGIN]
    for metric in listed:
        train, held_out = series(records, metric.name), series(records, f"eval_{metric.name}")
        if metric.name == "eval_loss" or not (train.steps or held_out.steps):
            continue
        smoothed = smooth(train.values, smoothing(len(train.steps)))
        lines = [
            Line("train", "raw", train.steps, train.values, metric.text),
            Line("smoothed", "main", train.steps, smoothed, metric.text),
            Line("evaluation", "dots", held_out.steps, held_out.values, metric.text),
        ]
        title = metric.title[:1].upper() + metric.title[1:]
        charts.append(
            line_chart(
                metric.name.replace("_", "-"), title, lines, unit=metric.note, tick=decimal_tick
            )
        )
    return charts


def _sections(content: dict[str, Any]) -> list[tuple[str, str]]:
    """Return (anchor, title) of the sections of the page."""
    present = {
        "training": ("Training", content["charts"]),
        "optimization": ("Optimisation", content["optimization"]),
        "results": ("Results", content["results"]),
        "samples": ("Before and after", content["samples"]),
        "data": ("Data", content["lengths"] or content["token_sample"] or content["totals"]),
        "modules": ("Adapted modules", content["modules"]),
        "memory": ("Memory", content["memory"]),
        "compare": ("Comparison of methods", content["compare"]),
        "setup": ("Recipe and environment", content["recipe"] or content["environment"]),
    }
    return [(anchor, title) for anchor, (title, there) in present.items() if there]


def _text(file: Path) -> str:
    try:
        return file.read_text("utf-8", errors="replace")
    except FileNotFoundError:
        return ""


def _gigabytes(value: float | None) -> str:
    return q.size(None if value is None else value * 1e9)
