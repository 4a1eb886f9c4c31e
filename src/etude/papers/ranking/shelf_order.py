"""The order without a model of the reader: the newest first, shelves in turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

NO_LIKES = "no likes yet: newest first"


def by_shelf(
    rows: Sequence[dict[str, Any]], shelf_of: Callable[[Sequence[str]], Sequence[str]] | None
) -> list[dict[str, Any]]:
    """Order by newest day, and within a day round-robin over shelves, newest id first."""
    turns: dict[tuple[str, str], int] = {}
    placed: list[tuple[str, int, str, dict[str, Any]]] = []
    for row in sorted(rows, key=lambda row: (row["announced"], row["id"]), reverse=True):
        categories = row.get("categories") or [""]
        shelf = ([*shelf_of(categories)] if shelf_of else []) or [categories[0]]
        key = (row["announced"], shelf[0])
        turns[key] = turns.get(key, 0) + 1
        placed.append((row["announced"], turns[key], shelf[0], row))
    placed.sort(key=lambda entry: (entry[1], entry[2]))
    placed.sort(key=lambda entry: entry[0], reverse=True)
    return [entry[3] for entry in placed]
