"""The worst errors in the report, as rows."""

from __future__ import annotations

from typing import Any

from etude.core import units as q
from etude.tuning.report.blocks import Block, Picture, Pictures, Table

SHOWN = 5


def worst_errors(content: dict[str, Any]) -> list[Block]:
    """List the samples that are most wrong: by probability, or by the size of the error.

    Args:
        content: titles of `columns`; `rows` of `origin`, `text` or `image`, and `cells`; how many
            are `wrong` of the `total`.
    """
    rows: list[dict[str, Any]] = content["rows"]
    if not rows:
        return []
    columns: list[str] = content["columns"]
    if "image" in rows[0]:
        return [_pictures(content)]
    number = columns[-1] == "error"
    note = (
        "The largest errors."
        if number
        else f"{q.number(content['wrong'])} of {q.number(content['total'])} decisions are wrong; "
        "the surest of them first."
    )
    return [
        Table(
            "Worst errors",
            ("row", *columns, "text"),
            [
                (row["origin"], *(_written(cell, number) for cell in row["cells"]), row["text"])
                for row in rows
            ],
            note=note,
            shown=SHOWN,
            left=frozenset({4} if number else {1, 2, 4}),
            wraps=frozenset({4}),
        )
    ]


def _pictures(content: dict[str, Any]) -> Pictures:
    """Return the images that are most wrong, each with its class and what was predicted."""
    shown: list[Picture] = []
    for row in content["rows"]:
        label, predicted, probability = row["cells"]
        caption = f"{label}, predicted {predicted} ({q.percent(probability)})"
        shown.append(Picture(row["image"], caption, row["origin"]))
    note = (
        f"{q.number(content['wrong'])} of {q.number(content['total'])} images are wrong; the "
        "surest of them first."
    )
    return Pictures("Wrong images", shown, note)


def _written(cell: str | float, number: bool) -> str:
    if isinstance(cell, str):
        return cell
    return f"{cell:.4g}" if number else q.percent(cell)
