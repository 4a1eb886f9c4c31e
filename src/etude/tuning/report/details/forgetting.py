"""What was forgotten, in the report: the probe of base and tuned model beside the task's gain."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from etude.core import units as q
from etude.tuning.metrics.metric import metrics_of
from etude.tuning.report.blocks import Block, Remark, Table
from etude.tuning.report.paired import p_text

TITLES = {
    "questions": "MMLU questions answered",
    "prose": "perplexity of {prose}",
    "instructions": "instructions followed",
}

SURE = 0.05
"""p below which a change is called one."""


def forgetting(content: dict[str, Any], summary: Mapping[str, Any]) -> list[Block]:
    """Draw what changed outside the task.

    Args:
        content: forgetting.json, as `forgetting.measure.measure_forgetting` writes it.
        summary: summary.json, with the gain on the task.
    """
    blocks: list[Block] = [Remark(verdict(content)), change_table(content, summary)]
    if content["examples"]:
        blocks.append(
            Table(
                "Instructions that only one of the two followed",
                ("", "instruction", "base", "tuned"),
                [
                    (
                        "lost" if row["lost"] else "gained",
                        row["prompt"],
                        _short(row["base"]),
                        _short(row["tuned"]),
                    )
                    for row in content["examples"]
                ],
                left=frozenset({1, 2, 3}),
                wraps=frozenset({1, 2, 3}),
                shown=6,
            )
        )
    return blocks


def change_table(content: Mapping[str, Any], summary: Mapping[str, Any]) -> Table:
    """Return the gain on the task and every change outside it; arguments as `forgetting`."""
    rows = [
        (
            f"the task: {metric.title}",
            "",
            metric.text(summary.get(f"{metric.name}_before")),
            metric.text(summary.get(metric.name)),
            metric.change(summary.get(f"{metric.name}_before"), summary.get(metric.name)),
            "",
            "",
        )
        for metric in metrics_of(summary, "")[:2]
        if summary.get(f"{metric.name}_before") is not None
    ]
    rows += [
        (
            title(change, content),
            q.number(change["items"]),
            written(change, change["base"]),
            written(change, change["tuned"]),
            _difference(change),
            _interval(change),
            p_text(change["p"]),
        )
        for change in content["changes"]
    ]
    return Table(
        "The task, and what the model was not tuned for",
        ("", "items", "base", "tuned", "change", "95 %", "p"),
        rows,
        note=" ".join(
            [
                "Base and tuned model were asked the same items: intervals are those of the paired "
                "difference by bootstrap, p is that of a paired permutation test.",
                *(f"{note[:1].upper()}{note[1:]}." for note in content["notes"]),
            ]
        ),
    )


def verdict(content: Mapping[str, Any]) -> str:
    """Return in one sentence what was lost, and what cannot be told from chance."""
    sure = [change for change in content["changes"] if change["p"] < SURE]
    worse = [change for change in sure if _is_worse(change)]
    better = [change for change in sure if not _is_worse(change)]
    parts: list[str] = []
    for word, changes in (("worse", worse), ("better", better)):
        if changes:
            listed = "; ".join(
                f"{title(change, content)}, {written(change, change['base'])} to "
                f"{written(change, change['tuned'])}"
                for change in changes
            )
            parts.append(f"{word} at {listed}")
    if not parts:
        return "What the model was not tuned for changed by no more than chance explains."
    rest = len(content["changes"]) - len(sure)
    said = f"Outside its task the tuned model is {', and '.join(parts)}"
    return said + ("; the rest may be chance." if rest else ".")


def title(change: Mapping[str, Any], content: Mapping[str, Any]) -> str:
    """Return what a measure is."""
    return TITLES[change["name"]].format(prose=content["prose"])


def written(change: Mapping[str, Any], value: float) -> str:
    """Return a value of a measure: a share, or the perplexity."""
    return f"{math.exp(value):.2f}" if change["name"] == "prose" else f"{value:.1f} %"


def _is_worse(change: Mapping[str, Any]) -> bool:
    difference = change["tuned"] - change["base"]
    return difference > 0 if change["name"] == "prose" else difference < 0


def _difference(change: Mapping[str, Any]) -> str:
    """Return the change: in points, or of the perplexity in percent."""
    difference = change["tuned"] - change["base"]
    if change["name"] == "prose":
        return f"{q.signed(100 * math.expm1(difference), 1)} %"
    return q.signed(difference, 1)


def _interval(change: Mapping[str, Any]) -> str:
    low, high = change["low"], change["high"]
    if change["name"] == "prose":
        low, high = 100 * math.expm1(low), 100 * math.expm1(high)
        return f"{q.signed(low, 1)} to {q.signed(high, 1)} %"
    return f"{q.signed(low, 1)} to {q.signed(high, 1)}"


def _short(text: str, most: int = 160) -> str:
    return text if len(text) <= most else f"{text[:most]} …"
