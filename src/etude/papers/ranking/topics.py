"""Groups of a day's papers, each named by a term that all of its papers have.

Greedy cover: the term that explains most of what is not grouped yet, measured by the sum of its
TF-IDF weights over those papers, names the next group. So a group's name is true of every paper in
it, and the same papers always give the same groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from etude.papers.ranking.corpus import Corpus

MOST_TOPICS = 12
FEWEST_PAPERS = 3
LARGEST_SHARE = 0.25
"""A term of more papers than this share says too little of them."""
LEAST_WEIGHT = 0.08
"""Cosine weight from which a paper is about a term, and does not only mention it."""


@dataclass(frozen=True)
class Topic:
    """A group."""

    name: str
    """The term; empty for the papers in no other group."""
    places: tuple[int, ...]
    """Indices of its papers, in their order."""


def topics(corpus: Corpus, rows: Sequence[dict[str, Any]], most: int = MOST_TOPICS) -> list[Topic]:
    """Return the topics of some papers, the largest first, and the rest last.

    Args:
        corpus: its vocabulary names the topics.
        rows: papers of the library.
        most: maximum number of topics besides the rest.
    """
    if not rows:
        return []
    vocabulary = corpus.vocabulary
    terms = len(vocabulary.idf)  # categories come after, and are no topics
    matrix = vocabulary.matrix(rows)[:, :terms].tocsc()
    matrix.data[matrix.data < LEAST_WEIGHT] = 0
    matrix.eliminate_zeros()
    left = np.ones(len(rows), dtype=bool)
    found: list[Topic] = []
    named: set[str] = set()
    limit = max(FEWEST_PAPERS, int(len(rows) * LARGEST_SHARE))
    while len(found) < most and left.sum() >= FEWEST_PAPERS:
        among = matrix[left]
        counts = np.diff(among.indptr)
        worth = np.asarray(among.sum(axis=0), dtype=float).ravel()
        worth[(counts < FEWEST_PAPERS) | (counts > limit)] = 0
        best = int(np.argmax(worth))
        if worth[best] <= 0:
            break
        column = matrix[:, [best]]
        has = np.zeros(len(rows), dtype=bool)
        has[column.indices] = True
        places = [int(place) for place in np.flatnonzero(has & left)]
        name = _name(vocabulary, [rows[place] for place in places], best)
        left[places] = False
        if name.casefold() not in named:
            named.add(name.casefold())
            found.append(Topic(name, tuple(places)))
        else:  # the same word in another form joins its group
            for number, topic in enumerate(found):
                if topic.name.casefold() == name.casefold():
                    joined = sorted((*topic.places, *places))
                    found[number] = Topic(topic.name, tuple(joined))
    found.sort(key=lambda topic: (-len(topic.places), topic.places))
    rest = tuple(int(place) for place in np.flatnonzero(left))
    return [*found, Topic("", rest)] if rest else found


def _name(vocabulary: Any, rows: Sequence[dict[str, Any]], term: int) -> str:
    """Return a term as the papers write it."""
    for row in rows:
        written = vocabulary.written(row).get(term)
        if written:
            return written
    return vocabulary.name(term)
