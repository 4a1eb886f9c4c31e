"""Checks of what a user gives: ids, names, notes, and the entries of an exported reader."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

from etude.core.errors import PapersError
from etude.papers.authors import spellings
from etude.papers.identity import parse_identifier
from etude.papers.words import shown, without_controls

FORMAT = "etude-reader"
VERSION = 1
LONGEST_NAME = 80
LONGEST_AUTHOR = 200
LONGEST_QUERY = 2000
LONGEST_NOTE = 20_000


def identifier(text: str) -> str:
    """Return the unversioned arXiv id in `text`.

    Raises:
        PapersError: there is none.
    """
    try:
        return parse_identifier(text).id
    except (ValueError, AttributeError) as error:
        short = shown(str(text))[:60]
        raise PapersError(
            f"{short!r} is not an arXiv id; ids look like 2403.01234 or hep-th/9901001"
        ) from error


def name_line(text: Any, what: str, longest: int) -> str:
    """Return `text` on one line, without control characters and lone surrogates.

    Args:
        text: what was given.
        what: it is, for the message.
        longest: maximum number of characters.

    Raises:
        PapersError: it is not text, empty or too long.
    """
    if not isinstance(text, str):
        raise PapersError(f"{what} must be text, not {type(text).__name__}")
    line = shown(text)
    if not line:
        raise PapersError(f"{what} must have at least one visible character")
    if len(line) > longest:
        raise PapersError(f"{what} may have at most {longest} characters; this one has {len(line)}")
    return line


def note_lines(text: Any) -> str:
    """Return `text` as lines without control characters; the last is not empty.

    Raises:
        PapersError: it is not text, or too long.
    """
    if not isinstance(text, str):
        raise PapersError(f"a note must be text, not {type(text).__name__}")
    if len(text) > LONGEST_NOTE:
        raise PapersError(
            f"a note may have at most {LONGEST_NOTE:,} characters; this one has {len(text):,}"
        )
    lines = [without_controls(line) for line in text.splitlines()]
    return "\n".join(lines).rstrip()


def _note_text(text: Any) -> str:
    note = note_lines(text)
    if not note:
        raise PapersError("`text` must have at least one visible character")
    return note


def author_name(text: Any) -> str:
    """Return an author's name on one line.

    Raises:
        PapersError: it is not a name.
    """
    author = name_line(text, "an author's name", LONGEST_AUTHOR)
    if not any(letter.isalpha() for letter in author) or not spellings(author):
        raise PapersError(f"{author[:60]!r} is not a name; use a name such as Ada Lovelace")
    return author


def _at(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise PapersError(f"`at` must be a number of seconds since 1970, not {str(value)[:40]!r}")
    return float(value)


def _opinion_value(value: Any) -> int:
    if isinstance(value, bool) or value not in (1, -1):
        raise PapersError(f"`value` must be 1 or -1, not {str(value)[:40]!r}")
    return int(value)


_FIELDS: dict[str, dict[str, Callable[[Any], Any]]] = {
    "opinions": {"id": identifier, "value": _opinion_value, "at": _at},
    "tags": {
        "id": identifier,
        "tag": lambda text: name_line(text, "a tag", LONGEST_NAME),
        "at": _at,
    },
    "notes": {"id": identifier, "text": _note_text, "at": _at},
    "following": {"author": author_name, "at": _at},
    "searches": {
        "name": lambda text: name_line(text, "the name of a search", LONGEST_NAME),
        "query": lambda text: name_line(text, "a search", LONGEST_QUERY),
        "at": _at,
    },
}


def checked_entries(kept: Any) -> dict[str, list[dict[str, Any]]]:
    """Return the entries of an export; raise a `PapersError` that names an invalid one."""
    if not isinstance(kept, dict) or cast("dict[str, Any]", kept).get("format") != FORMAT:
        raise PapersError('this is not an exported reader (its "format" must be "etude-reader")')
    kept = cast("dict[str, Any]", kept)
    if kept.get("version") != VERSION:
        raise PapersError(
            f"this reader was exported in version {str(kept.get('version'))[:20]!r} of the format; "
            f"this Etude reads version {VERSION}: update Etude"
        )
    result: dict[str, list[dict[str, Any]]] = {}
    for part, fields in _FIELDS.items():
        entries = kept.get(part, [])
        if not isinstance(entries, list):
            raise PapersError(f"{part}: expected a list, not {type(entries).__name__}")
        result[part] = []
        for number, entry in enumerate(cast("list[Any]", entries), 1):
            if not isinstance(entry, dict):
                raise PapersError(f"{part}, entry {number}: expected the keys {', '.join(fields)}")
            given = cast("dict[str, Any]", entry)
            try:
                values = {name: check(given.get(name)) for name, check in fields.items()}
            except PapersError as error:
                raise PapersError(f"{part}, entry {number}: {error}") from error
            result[part].append(values)
    return result
