"""Documents that a query is compared with, to train and to measure a reranker.

Training takes negatives from the training rows alone: some that a first stage (BM25, or an
embedding model) ranks high though they do not belong with the query, and some at random. Evaluation
takes what the first stage finds among the held-out documents, as a search would; a document that it
misses cannot be ranked.

Documents are the different positives and negatives of the rows; of rows with a label, their
different texts, which belong with the texts of their class.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from etude.core.errors import DataError
from etude.tuning.data.bm25 import BM25
from etude.tuning.data.labels import labels_of
from etude.tuning.data.schema import Sample

HARD_DEPTH = 50
"""Hard negatives are drawn from the first so many documents of the first stage. The very first ones
may belong with the query although no row says so; taking all of them would teach errors."""

Ranker = Callable[[Sequence[str], Sequence[str]], Iterable[NDArray[np.integer[Any]]]]
"""A first stage: of documents and queries, the places of each query's documents, the best first.
Documents that it does not find are left out."""


def bm25_ranker(
    documents: Sequence[str], queries: Sequence[str]
) -> Iterable[NDArray[np.integer[Any]]]:
    """Rank documents by BM25; those that share no word with a query are not found."""
    index = BM25(documents)
    return map(index.order, queries)


@dataclass(frozen=True)
class Query:
    """A query with its documents."""

    sample: Sample
    """The row; of several with this query, the first."""
    relevant: tuple[str, ...]
    """Documents that belong with it: of a training query one, else those that were found, or one
    if none was."""
    others: tuple[str, ...]
    """Documents that do not."""
    ranks: tuple[int, ...] = (0,)
    """Of each document that belongs with it, those found first: its rank in the first stage, 1 for
    the best; 0: not found."""


@dataclass(frozen=True)
class Mined:
    """Queries, and what was drawn for them."""

    queries: list[Query]
    documents: int
    """Number of different documents."""
    hard: int = 0
    """Negatives from the first stage."""
    random: int = 0
    """Negatives drawn from all documents."""
    given: int = 0
    """Negatives that the rows name."""
    alone: tuple[str, ...] = ()
    """Rows left out, because no other text has their label."""


class _Collection:
    """The documents of rows, and which belong with which query."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.places: dict[str, int] = {}
        self._relevant: defaultdict[str, set[int]] = defaultdict(set)
        for sample in samples:
            if sample.positive is None:
                self._relevant[_class(sample)].add(self._place(sample.text or ""))
                continue
            self._relevant[f"\0{sample.text}"].add(self._place(sample.positive))
            if sample.negative is not None:
                self._place(sample.negative)
        self.documents = list(self.places)

    def _place(self, text: str) -> int:
        return self.places.setdefault(text, len(self.places))

    def relevant(self, sample: Sample) -> set[int]:
        """Return the documents that belong with a sample's text, without the text itself."""
        by_class = sample.positive is None
        found = self._relevant[_class(sample) if by_class else f"\0{sample.text}"]
        return found - {self.places.get(sample.text or "", -1)}

    def excluded(self, sample: Sample) -> set[int]:
        """Return the documents that are no negatives of a sample."""
        return self.relevant(sample) | {self.places.get(sample.text or "", -1)}


def training_queries(
    samples: Sequence[Sample], rank: Ranker, negatives: int, hard: int, seed: int
) -> Mined:
    """Return each row with its positive and its negatives.

    Args:
        samples: training rows; no other text is drawn.
        rank: the first stage.
        negatives: documents for each query; one that the row names is the first of them.
        hard: how many of them the first stage chooses, as far as it finds any.
        seed: of the draws.

    Raises:
        DataError: no query has a positive and a negative.
    """
    known = _Collection(samples)
    orders = rank(known.documents, [sample.text or "" for sample in samples])
    chooser = random.Random(seed)
    count = {"hard": 0, "random": 0, "given": 0}
    queries: list[Query] = []
    alone: list[str] = []
    for sample, order in zip(samples, orders, strict=True):
        relevant = sorted(known.relevant(sample))
        if not relevant:
            alone.append(sample.origin)
            continue
        positive = sample.positive or known.documents[chooser.choice(relevant)]
        taken = known.excluded(sample)
        chosen: list[int] = []
        if sample.negative is not None and known.places[sample.negative] not in taken:
            chosen.append(known.places[sample.negative])
        count["given"] += len(chosen)
        taken |= set(chosen)
        first = map(int, order[: HARD_DEPTH + len(taken)])
        near = [place for place in first if place not in taken][:HARD_DEPTH]
        drawn = chooser.sample(near, min(hard, negatives - len(chosen), len(near)))
        count["hard"] += len(drawn)
        chosen += drawn
        taken |= set(drawn)
        drawn = _at_random(chooser, len(known.documents), taken, negatives - len(chosen))
        count["random"] += len(drawn)
        chosen += drawn
        if chosen:
            others = tuple(known.documents[place] for place in chosen)
            queries.append(Query(sample, (positive,), others))
    if not queries:
        raise DataError(
            "no training query has a document that does not belong with it: rows need different "
            "documents (data.positive), or texts of more than one label"
        )
    return Mined(
        queries,
        len(known.documents),
        hard=count["hard"],
        random=count["random"],
        given=count["given"],
        alone=tuple(alone),
    )


def held_out_queries(samples: Sequence[Sample], rank: Ranker, candidates: int) -> Mined:
    """Return each different held-out text with what the first stage finds for it.

    Args:
        samples: held-out rows, whose documents are searched.
        rank: the first stage.
        candidates: documents that the first stage passes on.

    Raises:
        DataError: no text has a document that belongs with it.
    """
    known = _Collection(samples)
    asked = {sample.text or "": sample for sample in reversed(samples)}
    queries: list[Query] = []
    alone: list[str] = []
    listed = [(text, asked[text]) for text in dict.fromkeys(s.text or "" for s in samples)]
    orders = rank(known.documents, [text for text, _ in listed])
    for (text, sample), whole in zip(listed, orders, strict=True):
        relevant = known.relevant(sample)
        if not relevant:
            alone.append(sample.origin)
            continue
        itself = known.places.get(text, -1)
        order = [place for place in map(int, whole) if place != itself][:candidates]
        ranks = {place: rank for rank, place in enumerate(order, start=1) if place in relevant}
        missed = [0] * (len(relevant) - len(ranks))
        shown = [*ranks] or [min(relevant)]
        queries.append(
            Query(
                sample,
                tuple(known.documents[place] for place in shown),
                tuple(known.documents[place] for place in order if place not in relevant),
                (*ranks.values(), *missed),
            )
        )
    if not queries:
        raise DataError("no held-out text has a document that belongs with it")
    return Mined(queries, len(known.documents), alone=tuple(alone))


def _at_random(chooser: random.Random, documents: int, taken: set[int], count: int) -> list[int]:
    """Draw different documents that are not taken, at most as many as there are."""
    if documents - len(taken) <= 4 * count:
        left = [place for place in range(documents) if place not in taken]
        return chooser.sample(left, min(count, len(left)))
    found: list[int] = []
    while len(found) < count:
        place = chooser.randrange(documents)
        if place not in taken and place not in found:
            found.append(place)
    return found


def _class(sample: Sample) -> str:
    return ", ".join(labels_of(sample))
