"""Words that a person may have meant: alike in spelling, and far more frequent in the index.

Candidates come from the index's own words of titles (of names, for authors): those that share the
first letter, and those that differ in it. Looked for only where a search found next to nothing,
and bounded: at most `MOST_CANDIDATES` words a group, the most frequent ones.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from etude.papers.search.nodes import Word
from etude.papers.search.text import plain, stems, words

if TYPE_CHECKING:
    from tantivy import Searcher

FEW = 5
"""Searches that find at least this many need no suggestion."""

SHORTEST = 4
"""Words of fewer letters are too like each other."""

MOST_CANDIDATES = 20_000
LEAST_FREQUENCY = 3
TIMES = 10
"""How much more frequent than what was typed a suggestion must be."""


def suggestions(searcher: Searcher, text: str, asked: Iterable[Word], most: int = 3) -> list[str]:
    """The query `text` with each word that the index hardly knows replaced by one that it knows.

    The first has the likeliest words; the others change one word each to its next likeliest.
    """
    choices: dict[str, list[str]] = {}
    for word in asked:
        if word.text not in choices and (found := nearest_words(searcher, word)):
            choices[word.text] = found
    if not choices:
        return []
    best = {typed: found[0] for typed, found in choices.items()}
    queries = [_replaced(text, best)]
    for typed, found in choices.items():
        queries += [_replaced(text, best | {typed: other}) for other in found[1:]]
    return [query for query in dict.fromkeys(queries) if query != text][:most]


def nearest_words(searcher: Searcher, word: Word, most: int = 3) -> list[str]:
    """Words of the index like `word`, nearest and then most frequent first."""
    typed = words(plain(word.text))
    if len(typed) != 1 or len(typed[0]) < SHORTEST or not typed[0].isalpha():
        return []
    target = typed[0]
    field = "author" if word.field == "author" else "word"
    if field == "author":
        own = searcher.doc_freq("author", target)
    else:
        own = max(searcher.doc_freq(one, stems(target)[0]) for one in ("title", "abstract"))
    least = max(LEAST_FREQUENCY, TIMES * own)
    furthest = 1 if len(target) < 6 else 2
    found: dict[str, tuple[int, int]] = {}
    for candidate, count in _candidates(searcher, field, target):
        if count < least or candidate == target or abs(len(candidate) - len(target)) > furthest:
            continue
        if candidate in found or " " in candidate:
            continue
        apart = distance(target, candidate, furthest)
        if apart <= furthest:
            found[candidate] = (apart, -count)
    return sorted(found, key=lambda candidate: found[candidate])[:most]


def _candidates(searcher: Searcher, field: str, target: str) -> Iterator[tuple[str, int]]:
    starts = [target[0], target[1:4], target[1] + target[0]]
    # Another first letter, and one that was left out.
    starts += [letter + target[1:3] for letter in string.ascii_lowercase]
    starts += [letter + target[:2] for letter in string.ascii_lowercase]
    for start in dict.fromkeys(starts):
        yield from searcher.terms_with_prefix(field, start, limit=MOST_CANDIDATES)


def distance(first: str, second: str, furthest: int) -> int:
    """Letters to add, leave out, change or swap with their neighbour between two words.

    More than `furthest` is told as `furthest` + 1. (Optimal string alignment: Damerau 1964.)
    """
    if abs(len(first) - len(second)) > furthest:
        return furthest + 1
    before: list[int] = []
    row = list(range(len(second) + 1))
    for i, letter in enumerate(first, 1):
        older, before, row = before, row, [i]
        for j, other in enumerate(second, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != other))
            if i > 1 and j > 1 and letter == second[j - 2] and first[i - 2] == other:
                cost = min(cost, older[j - 2] + 1)
            row.append(cost)
        if min(row) > furthest:
            return furthest + 1
    return row[-1]


def _replaced(text: str, by: dict[str, str]) -> str:
    for typed, meant in by.items():
        text = re.sub(rf"(?<!\w){re.escape(typed)}(?!\w)", lambda _, meant=meant: meant, text)
    return text
