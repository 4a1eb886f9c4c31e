"""Words of a raw text, split as the training words were.

A tagger labels words. What a word is, the training data say: some split `Parkinson's` into three,
some keep `U.S.` or `@name` whole, some leave a comma on the word before it. The tokenizer's own
pre-tokenizer would not know, and differs between models (one keeps punctuation, one takes the space
along), so that the same tagged data would mean other words on each. The way is therefore chosen
from the training words, saved with the head, and is the same for every model.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Literal

from etude.core.words import UNSPACED

Splitting = Literal["punctuation", "edges", "whitespace"]
"""`punctuation`: every punctuation mark is a word of its own, as in BERT. `edges`: only those at
the beginning and end of a word, and English contractions. `whitespace`: at white space alone."""

_ASCII = re.compile(r"[A-Za-z0-9]+|[^\sA-Za-z0-9]")
_CHUNK = re.compile(r"\S+")
_CLITIC = re.compile(r"(?i)(?:'(?:s|m|d|re|ve|ll)|n't)$")
_WHOLE = 0.985
"""Share of the training words that a splitting must leave whole."""
_SEPARATE = 0.005
"""Share of the training words that are punctuation alone, where punctuation is split off."""
_LOOKED_AT = 200_000


def split_words(text: str, splitting: Splitting) -> list[tuple[int, int]]:
    """Return where each word of a text begins and ends, in characters."""
    if splitting == "whitespace":
        return [match.span() for match in _CHUNK.finditer(text)]
    if splitting == "punctuation":
        if text.isascii():
            return [match.span() for match in _ASCII.finditer(text)]
        return _unicode_words(text)
    return [span for match in _CHUNK.finditer(text) for span in _edges(text, *match.span())]


def splitting_of(words: Iterable[str]) -> Splitting:
    """Return the splitting that gives words like these: the finest that leaves them whole."""
    total = marks = 0
    whole = {"punctuation": 0, "edges": 0}
    for word in words:
        total += 1
        if total > _LOOKED_AT:
            break
        if not any(map(_in_word, word)):
            marks += 1
        for name in ("punctuation", "edges"):
            whole[name] += len(split_words(word, name)) == 1
    if total == 0 or whole["punctuation"] >= _WHOLE * total:
        return "punctuation"
    return "edges" if marks >= _SEPARATE * total else "whitespace"


def _in_word(character: str) -> bool:
    """Return whether a character is a letter, a digit, or a mark on one."""
    return unicodedata.category(character)[0] in "LNM"


def _unicode_words(text: str) -> list[tuple[int, int]]:
    spans: list[tuple[int, int]] = []
    grows = False
    for place, character in enumerate(text):
        if character.isspace():
            grows = False
            continue
        category = unicodedata.category(character)
        attached = category[0] == "M" or category == "Cf"
        letter = _in_word(character) and UNSPACED.match(character) is None
        adjoins = bool(spans) and spans[-1][1] == place
        if adjoins and (attached or (grows and letter)):
            spans[-1] = spans[-1][0], place + 1
            continue
        spans.append((place, place + 1))
        grows = letter
    return spans


def _edges(text: str, start: int, end: int) -> list[tuple[int, int]]:
    """Return the words of a chunk without white space."""
    before: list[tuple[int, int]] = []
    after: list[tuple[int, int]] = []
    while start < end and not _in_word(text[start]):
        if _CLITIC.fullmatch(text, start, end):
            break
        # A name (@etude), a topic (#nlp), an amount (-5, $5) keeps its sign.
        if text[start] in "@#$-+" and start + 1 < end and _in_word(text[start + 1]):
            break
        run = _run(text, start, end)
        before.append((start, run))
        start = run
    while start < end and not _in_word(text[end - 1]):
        # U.S., J.
        if text[end - 1] == "." and ("." in text[start : end - 1] or end - start == 2):
            break
        first = end - 1
        while first > start and text[first - 1] == text[end - 1]:
            first -= 1
        after.append((first, end))
        end = first
    if start < end:
        clitic = _CLITIC.search(text, start, end)
        if clitic is not None and clitic.start() > start:
            after.append((clitic.start(), end))
            end = clitic.start()
        before.append((start, end))
    return before + after[::-1]


def _run(text: str, start: int, end: int) -> int:
    """Return the end of a run of one character, as in `...`."""
    stop = start + 1
    while stop < end and text[stop] == text[start]:
        stop += 1
    return stop
