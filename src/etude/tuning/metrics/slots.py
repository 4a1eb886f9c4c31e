r"""Slots of a meaning representation, and whether a text realises them.

    name : Alimentum | area : city centre           E2E as distributed
    name[Alimentum], area[city centre]              E2E in CSV
    {"name": "Alimentum", "area": ["city centre"]}  JSON

A slot is realised where the words of its value occur in the text, in order and beside each other;
case and, of English words, endings make no difference (words are those of ROUGE). Values that only
say yes or no are left out: no wording of theirs is certain.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

from etude.core.errors import DataError
from etude.core.json_text import parse_json
from etude.tuning.metrics.rouge import split_words

_BRACKETED = re.compile(r"([^\[\],]+)\[([^\]]*)\]")
_SAYS_NOTHING = {"yes", "no", "true", "false", ""}

Slots = Sequence[tuple[str, str]]
"""(name, value) pairs; a slot of several values occurs once for each."""


def read_slots(value: Any, where: str) -> Slots:
    """Return the slots of a column's value, in any of the three forms.

    Raises:
        DataError: it has another form; the message begins with `where`.
    """
    if isinstance(value, str):
        text = value.strip()
        if text.startswith("{"):
            try:
                return read_slots(parse_json(text), where)
            except ValueError as error:
                raise DataError(f"{where} is not JSON: {error}") from None
        if pairs := _BRACKETED.findall(text):
            return [(name.strip(), one.strip()) for name, one in pairs]
        parts = [part.partition(":") for part in text.split("|") if part.strip()]
        if parts and all(colon for _, colon, _ in parts):
            return [(name.strip(), one.strip()) for name, _, one in parts]
    if isinstance(value, Mapping):
        found: list[tuple[str, str]] = []
        for name, one in cast("Mapping[str, Any]", value).items():
            values = cast("Sequence[Any]", one) if isinstance(one, (list, tuple)) else [one]
            found += [(name, str(each)) for each in values if each is not None]
        return found
    raise DataError(
        f"{where} holds no slots: expected `name : value | name : value`, `name[value], ...` or an "
        f"object, got {str(value)[:60]!r}"
    )


def realized(slots: Slots, text: str) -> list[bool]:
    """Return for each slot whose value can be looked for whether it occurs in the text."""
    words = [word.key for word in split_words(text)]
    found: list[bool] = []
    for _, value in slots:
        if value.strip().casefold() in _SAYS_NOTHING:
            continue
        sought = [word.key for word in split_words(value)]
        if not sought:
            continue
        starts = range(len(words) - len(sought) + 1)
        found.append(any(words[at : at + len(sought)] == sought for at in starts))
    return found
