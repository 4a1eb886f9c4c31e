"""The test set in the report: when it was opened, and what was measured on it."""

from __future__ import annotations

from typing import Any

from etude.core import units as q
from etude.tuning.metrics.metric import Metric
from etude.tuning.report.blocks import Block, Table


def final_test(record: dict[str, Any]) -> list[Block]:
    """Draw the figures of the test set; `record` is test.json."""
    latest = record["openings"][-1]["results"]
    metrics = [Metric.from_json(one) for one in record["metrics"]]
    shown = [m for m in metrics if m.name in latest["tuned"]]
    rows = [
        (
            voice,
            *(figure(metric, result) for metric in shown),
            q.number(result["samples"]),
        )
        for voice, result in latest.items()
    ]
    notes = " ".join(
        f"{note[:1].upper()}{note[1:]}." for note in [opened(record), *warnings(record)]
    )
    return [Table("The test set", ("", *(m.title for m in shown), "samples"), rows, note=notes)]


def opened(record: dict[str, Any]) -> str:
    """Return when a test set was opened first, and how often since, in words."""
    first, *more = record["openings"]
    said = (
        f"the test set was opened on {_day(first['at'])} with the adapter {first['adapter'][:12]}"
    )
    if not more:
        return said
    times = "once" if len(more) == 1 else f"{len(more)} times"
    return f"{said}, and {times} again, last on {_day(more[-1]['at'])}"


def warnings(record: dict[str, Any]) -> list[str]:
    """Return what makes the figures of a test set look better than they are, a sentence each."""
    samples = record["openings"][-1]["results"]["tuned"]["samples"]
    found: list[str] = []
    for key, where in (("in_training", "training"), ("in_evaluation", "evaluation")):
        if count := record[key]:
            found.append(
                f"{count:,} of {samples:,} test samples have their text in the {where} data, too"
            )
    if len(record["openings"]) > 1:
        found.append(
            f"opened {len(record['openings'])} times: what was changed in between was chosen by it"
        )
    if record["elsewhere"]:
        count = len(record["elsewhere"])
        runs = "another run here was" if count == 1 else f"{count} other runs here were"
        found.append(f"{runs} tested on the same rows: the best looks better than it is")
    return found


def test_figures(record: dict[str, Any]) -> list[tuple[str, str]]:
    """Return each metric of the latest opening: its title, and its value with standard error."""
    result = record["openings"][-1]["results"]["tuned"]
    metrics = [Metric.from_json(one) for one in record["metrics"]]
    return [(f"test {m.title}", figure(m, result)) for m in metrics if m.name in result]


def figure(metric: Metric, result: dict[str, Any]) -> str:
    """Return a metric with its standard error, where that is known."""
    error = metric.error_text(result.get("standard_errors", {}).get(metric.name))
    return f"{metric.text(result.get(metric.name))} {error}".strip()


def _day(at: str) -> str:
    """Return a time of the record as people read it."""
    return f"{at[:10]} at {at[11:16]} UTC"
