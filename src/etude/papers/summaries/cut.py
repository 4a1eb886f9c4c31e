"""Truncation of long sentences at clause boundaries, with omissions marked.

`To cope with the many sensors of modern cars and their noise, we propose A, which ...` is cut
before `we`, and ends at a comma, a colon or a conjunction: `…we propose A.` The remaining words are
contiguous words of the sentence.
"""

from __future__ import annotations

import re
from typing import Final

from etude.core.words import word_set

MOST_WORDS: Final = 30
"""Maximum number of white-space-separated words of a summary."""
CUT: Final = "…"
"""Mark of an omission."""
_FEWEST: Final = 10
_MAIN = re.compile(r"(?:,|:|;|—)\s+(?=(?:we|this paper|this work|our)\s)")
_JOINS: Final = word_set(
    "and but which who where while whereas that so because although by with for to from "
    "in on when using via without including under through into as if"
)
_ARTICLES: Final = word_set("a an the its their our")
_PAUSES: Final = (",", ";", ":", "—", ")", "–")


def cut(sentence: str, most: int = MOST_WORDS) -> str:
    """Return `sentence`, or a part of at most `most` words with `…` at each cut."""
    words = sentence.split()
    if len(words) <= most:
        return sentence
    start = _main_clause(sentence, most)
    kept = words[start:]
    if len(kept) > most:
        kept = kept[: _end(kept, most)]
        kept[-1] = kept[-1].rstrip(",;:—–") + CUT
    if start:
        kept[0] = CUT + kept[0]
    return " ".join(kept)


def _main_clause(sentence: str, most: int) -> int:
    """Return the number of words before the clause that states the contribution."""
    for found in _MAIN.finditer(sentence):
        before = len(sentence[: found.start()].split())
        if before > most * 2 // 3:
            return before if len(sentence.split()) - before >= _FEWEST else 0
        if before >= _FEWEST // 2 and len(sentence.split()) - before >= _FEWEST:
            return before
    return 0


def _end(words: list[str], most: int) -> int:
    """Return the number of `words` to keep: up to the last punctuation or conjunction."""
    # "a unique, optimal precision" has a comma inside a phrase.
    pauses = [
        n
        for n in range(_FEWEST, most + 1)
        if words[n - 1].endswith(_PAUSES) and words[n - 2].lower() not in _ARTICLES
    ]
    joins = [n for n in range(_FEWEST, most + 1) if words[n].lower() in _JOINS]
    late = [n for n in pauses if n >= most // 2]
    if late:
        return late[-1]
    while joins and words[joins[-1] - 1].lower() in _JOINS:
        joins.pop()
    if joins:
        return joins[-1]
    return pauses[-1] if pauses else most
