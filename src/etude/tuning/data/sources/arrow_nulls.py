"""Nulls that Arrow adds: every object of a column has the keys of all of them, null if absent.

It registers no source.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast


def without_padding(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of a table without the null entries of its objects; its columns all stay.

    Rendered, these nulls would teach a model to pass arguments that nobody passed. Tables do not
    tell them from nulls that are meant; JSON files have only these, and are left as they are.
    """
    return {column: _stripped(value) for column, value in values.items()}


def _stripped(value: Any) -> Any:
    if isinstance(value, Mapping):
        fields = cast("Mapping[str, Any]", value)
        return {name: _stripped(inner) for name, inner in fields.items() if inner is not None}
    if isinstance(value, (list, tuple)):
        return [_stripped(inner) for inner in cast("Sequence[Any]", value)]
    return value
