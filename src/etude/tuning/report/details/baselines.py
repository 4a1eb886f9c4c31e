"""Simple baselines beside the model: a table, and a remark where they are as good."""

from __future__ import annotations

from typing import Any

from etude.tuning.metrics.metric import Metric
from etude.tuning.report.blocks import Block, Remark, Table


def baselines(content: dict[str, Any]) -> list[Block]:
    """Draw the scores of baselines and model.

    Args:
        content: `metrics`, `rows` of a name and metrics, `verdict` and `note`.
    """
    metrics = [Metric.from_json(record) for record in content["metrics"]]
    rows: list[dict[str, Any]] = content["rows"]
    best = {
        (max(range(len(rows)), key=lambda row: sign * rows[row]["metrics"][metric.name]), place)
        for place, metric in enumerate(metrics, start=1)
        for sign in [1 if metric.higher_is_better else -1]
    }
    table = Table(
        "Beside simple baselines",
        ("", *(metric.title for metric in metrics)),
        [(row["name"], *(m.text(row["metrics"][m.name]) for m in metrics)) for row in rows],
        note=content["note"],
        best=frozenset(best),
    )
    return [Remark(content["verdict"]), table] if content["verdict"] else [table]


def baseline_lines(content: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the same for a terminal: a label and a text for each line."""
    metrics = [Metric.from_json(record) for record in content["metrics"]]
    lines = [
        (
            "baseline",
            f"{row['name']}: "
            + ", ".join(f"{m.title} {m.text(row['metrics'][m.name])}" for m in metrics),
        )
        for row in content["rows"][:-1]
    ]
    if content["verdict"]:
        lines.append(("note", content["verdict"]))
    if content["note"]:
        lines.append(("note", content["note"]))
    return lines
