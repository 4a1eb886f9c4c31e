"""Spelling suggestions: similar words that are far more frequent in the index.

Candidates are the index's own words of titles (of names, for authors): those that share the first
letter, and those that differ in it. They are searched only for queries with almost no results, and
bounded to the `MOST_CANDIDATES` most frequent words per group.
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
"""Number of results from which no suggestion is made."""

SHORTEST = 4
"""Minimum length of a word; shorter ones are too similar to each other."""

MOST_CANDIDATES = 20_000
LEAST_FREQUENCY = 3
TIMES = 10
"""Minimum frequency of a suggestion relative to the typed word."""


def suggestions(searcher: Searcher, text: str, asked: Iterable[Word], most: int = 3) -> list[str]:
    """Return the query `text` with its rare words replaced by frequent ones.

    The first has the most likely words; the others replace one of them by the next likely.
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
    """Return words of the index similar to `word`, nearest and then most frequent first."""
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
    # A different or a missing first letter.
    starts += [letter + target[1:3] for letter in string.ascii_lowercase]
    starts += [letter + target[:2] for letter in string.ascii_lowercase]
    for start in dict.fromkeys(starts):
        yield from searcher.terms_with_prefix(field, start, limit=MOST_CANDIDATES)


def distance(first: str, second: str, furthest: int) -> int:
    """Return the edit distance of two words: insertions, deletions, substitutions, transpositions.

    Above `furthest` it returns `furthest` + 1. (Optimal string alignment: Damerau 1964.)
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
