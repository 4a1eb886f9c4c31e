"""Names of classes that a data set stores as numbers in lists, as tags of words are.

`datasets` keeps them in the features of a data set, and in the schema of the Parquet files that it
writes. It registers no source.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

ListNames = Mapping[str, Sequence[str]]
"""Names by column."""


def names_in_features(features: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the names of every column that is a list of classes.

    Args:
        features: as `Features.to_dict` returns them.
    """
    found: dict[str, list[str]] = {}
    for column, feature in features.items():
        inner: Any = feature
        if isinstance(inner, Mapping):
            inner = cast("Mapping[str, Any]", inner).get("feature")
        elif isinstance(inner, list):
            several = cast("list[Any]", inner)
            inner = several[0] if several else None
        if isinstance(inner, Mapping) and isinstance(
            names := cast("Mapping[str, Any]", inner).get("names"), list
        ):
            found[column] = [str(name) for name in cast("list[Any]", names)]
    return found


def names_in_schema(metadata: Mapping[bytes, bytes] | None) -> dict[str, list[str]]:
    """Return the names that the metadata of a Parquet schema has; none where it has none."""
    try:
        written: Any = json.loads((metadata or {}).get(b"huggingface", b"{}"))
        return names_in_features(written["info"]["features"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def named(values: dict[str, Any], names: ListNames) -> dict[str, Any]:
    """Return a row with its lists of numbers as names; numbers without a name stay."""
    changed: dict[str, Any] = {}
    for column, known in names.items():
        value = values.get(column)
        if isinstance(value, list):
            numbers = cast("list[Any]", value)
            changed[column] = [
                known[i] if isinstance(i, int) and 0 <= i < len(known) else i for i in numbers
            ]
    return {**values, **changed} if changed else values
