"""Sentence splitter for abstracts.

A full stop ends a sentence if it is followed by white space and a possible start of a sentence,
unless it belongs to an abbreviation (`et al.`, `Fig. 3`, `vs.`), an initial (`J. Smith`) or a
number in a list. A stop inside a decimal, a version or a URL has no white space after it and is
not considered.
"""

from __future__ import annotations

import re
from typing import Final

from etude.core.words import word_set

_STOP = re.compile(r"[.!?…]{1,5}[\"'”’)\]]{0,3}(?=\s)|[.!?](?=[A-Z][a-z]+\s[a-z])")
"""A stop before white space, or with the space missing, as in `here.We show`."""
_BEGINS = re.compile(
    r"[\"'“‘(\[¿¡*•–—-]*(?:[A-ZÀ-ÖØ-ÞΑ-Ω0-9]|https?://|[^\W\d_a-z]|[a-z]+[A-Z0-9]"
    r"|(?:[ivx]{1,4}|[a-h])\)\s|[a-z]-[a-z])"
)
_WORD = re.compile(r"[^\s(\[\"“‘]*$")
_NEXT = re.compile(r"[^\s]+")

NEVER: Final = word_set(
    "et e.g i.e eg ie ex cf viz resp fig figs eq eqs eqn eqns sec secs sect ch chap tab "
    "thm prop lem cor def alg ref refs vs v.s approx ca vol nos pp ed eds dr prof mr mrs "
    "ms st jr proc conf intl univ dept w.r.t s.t a.k.a aka i.i.d incl esp wrt et.al app "
    "appx suppl ser jan feb mar apr jun jul aug sep sept oct nov dec"
)
"""Abbreviations that never end a sentence."""
PERHAPS: Final = word_set("al etc u.s u.k e.u u.s.a inc ltd co corp no et.al a.i ph.d p.m a.m")
"""Abbreviations that may end a sentence as well: the next word decides."""
_OPENERS: Final = word_set(
    "a an the this that these those we our in on to it its as for with by from at here "
    "there however moreover furthermore additionally although while when if since because "
    "despite using based unlike such recent recently existing previous experiments "
    "experimental results specifically finally first second third thus therefore hence "
    "then code they their one both many most some what how why can is are does do and but "
    "or not given extensive yet"
)
"""Words that are rarely capitalised inside a sentence."""


def sentences(abstract: str) -> list[str]:
    """Return the sentences of `abstract`, each unchanged; an empty list for blank text.

    Joined by the white space between them they give the abstract again. Pass it through
    `etude.papers.latex_text` first.
    """
    found: list[str] = []
    start = 0
    for stop in _STOP.finditer(abstract):
        if _ends(abstract, start, stop):
            found.append(abstract[start : stop.end()].strip())
            start = stop.end()
    rest = abstract[start:].strip()
    if rest:
        found.append(rest)
    return found


def _ends(text: str, start: int, stop: re.Match[str]) -> bool:
    """Return whether the stop ends the sentence that begins at `start`."""
    after = text[stop.end() : stop.end() + 80].lstrip()
    if not after:
        return False  # the rest is the last sentence anyhow
    mark = stop[0]
    if _BEGINS.match(after) is None:
        return False
    if mark[0] in "!?" or mark.startswith(("...", "…")):
        return True
    before = text[max(start, stop.start() - 40) : stop.start()]
    word = (_WORD.search(before) or [""])[0]
    key = word.lower().lstrip("'’-–—")
    closed = len(mark) > 1
    follower = _NEXT.match(after)
    opener = follower is not None and follower[0].strip("\"'“‘([,.:;").lower() in _OPENERS
    if key in NEVER:
        return closed and mark[-1] in ")]" and opener
    if key in PERHAPS:
        return opener and key != "no"
    if len(key) == 1 and word.isalpha() and not closed:
        return _initial_ends(before, word, opener)
    # "1. First" is an item that begins here.
    return not (word.isdigit() and len(word) <= 2 and before.strip() == word and not closed)


def _initial_ends(before: str, word: str, opener: bool) -> bool:
    """Return whether a stop after a single letter, an initial or a symbol, ends the sentence."""
    if word.islower() or word in "IX":
        return True
    previous = before[: -len(word)].rstrip()
    named = (
        bool(re.search(r"(?:^|[\s(])(?:[A-Z]\.|[A-Z][a-z]+|and|by|&|of)$|,$", previous))
        or not previous
    )
    return opener or not named
