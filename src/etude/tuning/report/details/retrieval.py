"""Results of embeddings in the report."""

from __future__ import annotations

from typing import Any

from etude.core import units as q
from etude.tuning.report.blocks import Block, Table

_UPTO = (1, 3, 10, 30, 100, 300, 1000)


def retrieval(content: dict[str, Any]) -> list[Block]:
    """Draw how far down the list the first right text is.

    Args:
        content: `ranks`, of each held-out text; `candidates`, how many documents a reranker orders.
    """
    found: list[int] = content["ranks"]
    if not found:
        return []
    rows: list[tuple[str, str, str]] = []
    below = 0
    candidates: int | None = content.get("candidates")
    for first, last in zip((1, *(n + 1 for n in _UPTO[:-1])), _UPTO, strict=True):
        if candidates is not None and first > candidates:
            break
        count = sum(first <= rank <= last for rank in found)
        below += count
        name = str(first) if first == last else f"{first} to {last}"
        rows.append((name, q.number(count), q.percent(below / len(found))))
        if below == len(found):
            break
    if below < len(found):
        rest = f"beyond {_UPTO[-1]}" if candidates is None else "not among the candidates"
        rows.append((rest, q.number(len(found) - below), q.percent(1.0)))
    note = (
        "Each held-out text is compared with all texts of the evaluation data."
        if candidates is None
        else f"Of each query, the {candidates:,} documents of the first stage are ordered."
    )
    return [
        Table(
            "Rank of the first right text",
            ("rank", "held-out texts", "this rank or better"),
            rows,
            note=note,
        )
    ]
