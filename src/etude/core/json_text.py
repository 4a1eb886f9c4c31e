"""JSON parsing with limits on depth and integer size."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

MOST_NESTED = 100
"""Maximum nesting of lists and objects. Templates and JSON writers recurse into them, and Python's
recursion limit is about a thousand."""

_TOO_DEEP = f"lists and objects are nested more than {MOST_NESTED} deep"
_decode = json.JSONDecoder().raw_decode
_Value = TypeVar("_Value")


def parse_json(text: str) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: it is not JSON, nested more than `MOST_NESTED` deep, or holds an integer of
            more digits than Python converts; the message says which, in a few words.
    """
    value = _explained(lambda: json.loads(text))
    return _shallow(value, text, 0, len(text))


def parse_json_at(text: str, start: int) -> tuple[Any, int]:
    """Return the JSON value that begins at `start`, and where it ends.

    Raises:
        ValueError: as `parse_json`.
    """
    value, end = _explained(lambda: _decode(text, start))
    return _shallow(value, text, start, end), end


def _explained(parse: Callable[[], _Value]) -> _Value:
    """Call a parser, and shorten its error messages."""
    try:
        return parse()
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}, " if error.lineno > 1 else ""
        raise ValueError(f"{error.msg} ({line}column {error.colno})") from None
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    except ValueError:
        digits = sys.get_int_max_str_digits()
        raise ValueError(f"an integer has more than {digits:,} digits") from None


def _shallow(value: Any, text: str, start: int, end: int) -> Any:
    """Return a value, refusing deep nesting; counts levels only if the text has many brackets."""
    brackets = text.count("[", start, end) + text.count("{", start, end)
    if brackets > MOST_NESTED and _nested(value) > MOST_NESTED:
        raise ValueError(_TOO_DEEP)
    return value


def _nested(value: Any) -> int:
    """Return the nesting depth of a value."""
    depth = 0
    level = _containers([value])
    while level:
        depth += 1
        inner: list[Any] = []
        for entry in level:
            inner += entry.values() if isinstance(entry, dict) else entry
        level = _containers(inner)
    return depth


def _containers(values: list[Any]) -> list[Any]:
    return [value for value in values if isinstance(value, (dict, list))]


def text_list(value: Any) -> list[str] | None:
    """Return a value that is a list of texts, at least one; None for anything else."""
    if not isinstance(value, (list, tuple)) or not value:
        return None
    listed = list(cast("Sequence[Any]", value))
    return listed if all(isinstance(piece, str) for piece in listed) else None
