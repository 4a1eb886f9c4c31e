"""How a summary was made, in words; see `missing` for the codes."""

from __future__ import annotations

from typing import Final

MODEL: Final = "model:"
"""Begins the code of a line that a language model wrote."""
KINDS: Final = {
    "empty": "it was empty",
    "short": "it was too short",
    "long": "it was too long",
    "title": "it repeated the title",
    "number": "it had a number that is not in the abstract",
    "name": "it had a name that is not in the abstract",
    "markup": "it had markup",
    "refusal": "it referred to itself or its task",
    "repeats": "it repeated itself",
    "other": "most of its words are not the abstract's",
    "unreachable": "the model could not be reached",
}
"""Reasons for the rejection of a line, for display."""
_WORDS: Final = {
    "extract": "verbatim sentence, chosen by Etude's ranking model ({})",
    "extract-cut": (
        "part of a verbatim sentence, cut where … stands, chosen by Etude's ranking model ({})"
    ),
    "notice": "the abstract's notice of withdrawal, verbatim",
    "none": "no summary: the abstract has no usable sentence",
}


def described(how: str) -> str:
    """Return a description of how a summary was made."""
    if how.startswith(MODEL):
        name = how[len(MODEL) :]
        return f"written by {name}, its numbers and names checked against the abstract"
    main, _, refused = how.partition("!")
    kind, _, version = main.partition(":")
    said = _WORDS.get(kind, "made in a way unknown to this version ({})").format(version)
    if not refused:
        return said
    fault, _, name = refused.partition(":")
    return f"{said}; the line by {name} was rejected: {KINDS.get(fault, 'unknown reason')}"
