"""Comparison of runs: figures, curves and recipe differences."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import yaml

from etude.core import units as q
from etude.core.atomic_files import replace_text
from etude.core.errors import RunError
from etude.tuning.config.renamed_keys import translated
from etude.tuning.metrics.smoothing import smooth
from etude.tuning.report.blocks import Remark
from etude.tuning.report.chart import Chart, Line, decimal_tick, line_chart
from etude.tuning.report.html import render_page
from etude.tuning.report.paired import paired_table, paired_tests
from etude.tuning.report.sections import comparison, evaluation_losses, loss_unit
from etude.tuning.report.series import Series, series, smoothing
from etude.tuning.report.summary import RunResult, Summary, result_of
from etude.tuning.runs.folder import RunFolder

COLORS = 6
"""Number of distinct run colours."""


def outcomes(folders: Sequence[RunFolder]) -> list[RunResult]:
    """Return each run's figures, by name; without a summary, its last metrics."""
    return [_outcome(folder) for folder in folders]


def loss_curves(folders: Sequence[RunFolder]) -> dict[str, Series]:
    """Return the smoothed training loss of each run."""
    curves: dict[str, Series] = {}
    for folder in folders:
        loss = series(folder.read_metrics(), "loss")
        curves[folder.name] = Series(loss.steps, smooth(loss.values, smoothing(len(loss.steps))))
    return curves


def recipe_differences(folders: Sequence[RunFolder]) -> list[tuple[str, list[str]]]:
    """Return the recipe keys that differ between runs, each with every run's value.

    The name is ignored: runs of the same experiment may differ in it.
    """
    recipes = [_flat(_recipe(folder)) for folder in folders]
    keys = dict.fromkeys(key for recipe in recipes for key in recipe if key != "name")
    rows = [(key, [_written(recipe.get(key)) for recipe in recipes]) for key in keys]
    return [(key, values) for key, values in rows if len(set(values)) > 1]


def write_comparison(folders: Sequence[RunFolder], path: Path) -> None:
    """Write a comparison of runs as one self-contained page.

    Raises:
        RunError: a run's file is damaged, or the page cannot be written.
    """
    names = [folder.name for folder in folders]
    charts = _charts(folders)
    tests = paired_tests(folders, every_pair=True)
    comparable = all(folder.state == "finished" for folder in folders)
    content: dict[str, Any] = {
        "kind": "Comparison of runs",
        "name": " · ".join(names),
        "names": names,
        "lede": "",
        "banner": "",
        "sections": [
            ("outcomes", "Outcomes"),
            *([("curves", "Curves")] if charts else []),
            *([("paired", "Sample by sample")] if tests else []),
            ("differences", "Differences"),
        ],
        "compare": comparison(outcomes(folders), rank=comparable),
        "ranked": comparable,
        "charts": charts,
        "tests": [paired_table(tests), *(Remark(test.sentence) for test in tests)] if tests else [],
        "differences": recipe_differences(folders),
        "source": "the files of these runs",
    }
    page = render_page("compare.html", content)
    try:
        replace_text(path, page)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror}") from None


def _charts(folders: Sequence[RunFolder]) -> list[Chart]:
    evaluations = {
        folder.name: evaluation_losses(folder.read_metrics(), _summary(folder))
        for folder in folders
    }
    # Losses of different objectives have no common unit.
    units = {loss_unit(_summary(folder), folder.read_metrics()) for folder in folders}
    unit = units.pop() if len(units) == 1 else ""
    charts = [
        line_chart(
            chart_id,
            title,
            [
                Line(name, f"run-{index % COLORS}", curve.steps, curve.values, q.loss)
                for index, (name, curve) in enumerate(curves.items())
            ],
            unit=unit,
            tick=decimal_tick,
            log_scale=True,
        )
        for chart_id, title, curves in (
            ("loss", "Training loss, smoothed", loss_curves(folders)),
            ("eval-loss", "Evaluation loss", evaluations),
        )
    ]
    return [chart for chart in charts if chart is not None]


def _outcome(folder: RunFolder) -> RunResult:
    summary = _summary(folder)
    known: dict[str, Any] = dict(result_of(summary))
    records = folder.read_metrics()
    if not known:
        for key, source in (("eval_loss", "eval_loss"), ("seconds", "seconds")):
            if finite := series(records, source).finite:
                known[key] = finite[-1]
    elif "train_seconds" in summary:
        known["seconds"] = summary["train_seconds"]
    return cast("RunResult", {**known, "method": folder.name})


def _summary(folder: RunFolder) -> Summary:
    return cast("Summary", folder.read_json(folder.summary.name) or {})


def _recipe(folder: RunFolder) -> dict[str, Any]:
    try:
        loaded: Any = yaml.safe_load(folder.recipe.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise RunError(f"cannot read {folder.recipe}: {error}") from None
    return translated(cast("dict[str, Any]", loaded)) if isinstance(loaded, dict) else {}


def _flat(fields: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested keys as dotted ones."""
    flat: dict[str, Any] = {}
    for key, value in fields.items():
        if isinstance(value, dict):
            flat |= _flat(cast("dict[str, Any]", value), f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _written(value: Any) -> str:
    if value is None:
        return q.UNKNOWN
    if isinstance(value, list):
        return ", ".join(str(item) for item in cast("list[Any]", value)) or "none"
    return str(value)
