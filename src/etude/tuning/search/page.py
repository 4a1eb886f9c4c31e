"""The page of a search: search.html, made from search.json and trials.json."""

from __future__ import annotations

from typing import Any

from etude.core import units as q
from etude.tuning.report.html import render_page
from etude.tuning.report.sections import Figure
from etude.tuning.runs.folder import RunFolder
from etude.tuning.search import charts
from etude.tuning.search.conclusion import changes, conclusions, left_out
from etude.tuning.search.parallel import parallel
from etude.tuning.search.record import SearchRecord
from etude.tuning.search.settings import COSTS
from etude.tuning.search.space import Space
from etude.tuning.search.trial import OVER, STATES, Trial
from etude.tuning.search.view import cost_text, error_text, metric_text, written_values


def write_search_report(folder: RunFolder, space: Space) -> None:
    """Write search.html.

    Raises:
        RunError: trials.json is damaged, or the page cannot be written.
    """
    folder.write_text("search.html", render(folder, space))


def render(folder: RunFolder, space: Space) -> str:
    """Return the page of a search.

    Raises:
        RunError: trials.json is damaged.
    """
    record = SearchRecord.read(folder)
    content: dict[str, Any] = {
        "name": folder.name,
        "kind": "Hyper-parameter search",
        "source": "the files of this search",
        **(search_content(folder, space, record) if record else _empty()),
    }
    return render_page("search.html", content)


def search_content(folder: RunFolder, space: Space, record: SearchRecord) -> dict[str, Any]:
    """Return what the page shows, for the report and for the app."""
    keys = [one.key for one in space.ranges]
    slices = [charts.slice_chart(one, record, name=str(i)) for i, one in enumerate(space.ranges)]
    fronts = [charts.front_chart(record, cost) for cost in record.against]
    best_file = folder.path / "best.yaml"
    content: dict[str, Any] = {
        "lede": _lede(record, keys),
        "banner": _banner(folder, record, space),
        "figures": _figures(record, space),
        "conclusions": conclusions(record, keys),
        "command": f"etude tune {best_file}" if best_file.exists() else "",
        "curves": [
            chart
            for chart in (charts.curves_chart(record), charts.progress_chart(record))
            if chart is not None
        ],
        "fronts": [chart for chart in fronts if chart is not None],
        "importance": charts.importance_rows(record),
        "importance_needs": 12,
        "parallel": parallel(space.ranges, record),
        "slices": [chart for chart in slices if chart is not None],
        "place": charts.common_place(record),
        "table": _table(record, keys),
        "space": [(one.key, one.text, _default(one.default)) for one in space.ranges],
        "recipe": _text(best_file),
        "settings": _settings(space),
        "left_out": left_out(record),
    }
    content["sections"] = [
        (anchor, title)
        for anchor, title, there in (
            ("result", "Result", content["conclusions"]),
            ("front", "Pareto front", content["fronts"]),
            ("course", "Course", content["curves"]),
            ("keys", "What decides", content["importance"] or content["slices"]),
            ("trials", "Trials", content["table"]["rows"]),
            ("setup", "Space and recipe", content["space"]),
        )
        if there
    ]
    return content


def _empty() -> dict[str, Any]:
    return {
        "lede": "No trial has been begun yet.",
        "banner": "",
        "figures": [],
        "conclusions": [],
        "command": "",
        "curves": [],
        "fronts": [],
        "importance": [],
        "importance_needs": 12,
        "parallel": None,
        "slices": [],
        "place": "",
        "table": {"columns": [], "rows": []},
        "space": [],
        "recipe": "",
        "settings": [],
        "left_out": "",
        "sections": [],
    }


def _lede(record: SearchRecord, keys: list[str]) -> str:
    best, default = record.trial(record.selection.best), record.trial(record.selection.default)
    if best is None or best.value is None:
        return "No trial is finished yet."
    metric = record.metric
    if default is None or default.value is None or best.number == default.number:
        return (
            f"Of {record.begun} trials none is better than the default recipe: {metric.title} "
            f"{metric.text(best.value)}."
        )
    return (
        f"The best of {record.begun} trials has {metric.title} {metric.text(best.value)}, the "
        f"default recipe {metric.text(default.value)}. It changes {changes(best, default, keys)}."
    )


def _banner(folder: RunFolder, record: SearchRecord, space: Space) -> str:
    state, detail = folder.state, str(folder.state_record().get("detail") or "")
    how = f"etude search --resume {folder.path}"
    at = f"after {record.begun} of {space.settings.trials} trials"
    if state in ("stopped", "killed", "failed"):
        why = f" ({detail})" if state == "failed" and detail else ""
        return f"This search {_ENDED[state]} {at}{why}; it goes on with: {how}"
    if state != "finished" and record.begun < space.settings.trials:
        return f"This search is at work: figures {at}."
    return ""


_ENDED = {"stopped": "was stopped", "killed": "was killed", "failed": "failed"}


def _figures(record: SearchRecord, space: Space) -> list[Figure]:
    metric = record.metric
    best, default = record.trial(record.selection.best), record.trial(record.selection.default)
    cheapest = record.trial(record.selection.cheapest)
    figures: list[Figure] = []
    if best is not None and best.value is not None:
        known = default.value if default is not None and default.number != best.number else None
        error = error_text(best, record)
        figures.append(
            Figure(
                f"Best {metric.title}",
                metric.text(best.value),
                ("the default recipe" if default is best else f"trial {best.number}")
                + (f", standard error {error}" if error else ""),
                before=metric.text(known) if known is not None else "",
                change=metric.change(known, best.value) if known is not None else "",
                better=known is None or not metric.better(known, best.value),
            )
        )
    if cheapest is not None and best is not None and best.error is not None:
        trained = cheapest.figures.get("trainable_parameters")
        figures.append(
            Figure(
                "Cheapest as good",
                metric.text(cheapest.value),
                f"trial {cheapest.number}, {q.short_number(trained)} trained parameters",
            )
        )
    spent = sum(trial.seconds for trial in record.trials)
    figures.append(
        Figure(
            "Trials",
            f"{record.begun} of {space.settings.trials}"
            if record.begun < space.settings.trials
            else q.number(record.begun),
            f"{q.duration(spent)}, as much as {record.trained:.1f} full trainings",
        )
    )
    return figures


def _table(record: SearchRecord, keys: list[str]) -> dict[str, Any]:
    columns = ["trial", "state", "trained", record.metric.title]
    columns += [COSTS[name] for name in record.against]
    columns += [*(key.rpartition(".")[2] for key in keys), "parameters", "time"]
    rows: list[dict[str, Any]] = []
    for trial in sorted(record.trials, key=lambda trial: _rank(trial, record)):
        shown = written_values(trial, keys)
        rows.append(
            {
                "number": trial.number,
                "name": _name(trial, record),
                "state": STATES[trial.state],
                "cells": [
                    "" if trial.state in OVER else f"{100 * trial.share:.0f} %",
                    metric_text(trial, record),
                    *(cost_text(name, trial.figures.get(name)) for name in record.against),
                    *shown.values(),
                    q.short_number(trial.figures.get("trainable_parameters")),
                    q.duration(trial.seconds) if trial.seconds else q.UNKNOWN,
                ],
                "reason": trial.reason,
                "best": trial.number == record.selection.best,
            }
        )
    return {"columns": columns, "rows": rows}


def _name(trial: Trial, record: SearchRecord) -> str:
    chosen = record.selection
    names = [
        name
        for name, number in (
            ("default", chosen.default),
            ("best", chosen.best),
            ("cheapest", chosen.cheapest),
        )
        if number == trial.number
    ]
    return ", ".join(names)


def _rank(trial: Trial, record: SearchRecord) -> tuple[float, float, int]:
    """Order trials: those that got furthest first, the best of them first."""
    value = trial.last_value
    if value is None:
        return (1.0, 0.0, trial.number)
    metric = record.metric if trial.value is not None else record.rung_metric or record.metric
    return (-trial.share, -value if metric.higher_is_better else value, trial.number)


def _settings(space: Space) -> list[tuple[str, str]]:
    settings = space.settings
    shares = settings.shares
    names = {"tpe": "TPE", "gp": "Gaussian process", "random": "random draws"}
    halving = (
        f"one in {settings.eta}, after {', '.join(f'{100 * s:.0f} %' for s in shares[:-1])}"
        if len(shares) > 1
        else "none"
    )
    return [
        ("sampler", names[settings.sampler]),
        ("halving", halving),
        ("seed", str(settings.seed)),
        ("space", space.origin),
    ]


def _default(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _text(file: Any) -> str:
    try:
        return file.read_text("utf-8", errors="replace")
    except FileNotFoundError:
        return ""
