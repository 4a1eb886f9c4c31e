"""What a reader wants to see, as one weight a term.

A linear support vector machine tells what was liked from a sample of all papers and from what was
disliked (arxiv-sanity-lite does it so, without dislikes). It is drawn towards the centroid of what
was liked, the more the fewer likes there are: three papers are too few to tell which of their words
matter. Both are weights of terms, so their sum is, too, and the score of a paper is the sum of what
its terms add: nothing is hidden from the explanation. One unit is the spread of scores over all
papers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from etude.papers.authors import followed_among
from etude.papers.library import Library
from etude.papers.ranking.corpus import Corpus, corpus_of, rows_of
from etude.papers.ranking.terms import LONGEST_TEXT, Matrix, Row
from etude.papers.reader import Reader
from etude.papers.words import folded

if TYPE_CHECKING:
    from numpy.typing import NDArray

SOFTNESS = 0.1
"""C of the support vector machine."""
CENTROID = 1.0
"""Length of the centroid's part beside the machine's with one like; it falls with more."""
AGAINST = 0.3
"""Length of the part that leads away from what was disliked."""
FOLLOWED = 3.0
"""What a followed author adds, in spreads of scores: enough for the first page of most days."""
TAGGED = 0.5
"""What a tag adds to a paper that bears it or names it."""
TAGGED_WEIGHT = 0.5
"""A paper that was tagged counts as half a like."""
MOST_OPINIONS = 2000
"""The newest opinions are learned from, so that a reader of many years trains as fast."""

_BETWEEN = re.compile(r"[\W_]+")


@dataclass(frozen=True)
class Interest:
    """A reader's interest; made by `fit`.

    Attributes:
        corpus: the terms.
        weights: (terms,), in spreads of scores.
        likes: how many papers it was learned from, tagged ones included.
        dislikes: how many.
        followed: authors.
        tagged: tags with the ids that bear them.
    """

    corpus: Corpus
    weights: NDArray[np.float64]
    likes: int = 0
    dislikes: int = 0
    followed: tuple[str, ...] = ()
    tagged: Mapping[str, frozenset[str]] = field(default_factory=dict[str, frozenset[str]])

    @classmethod
    def fit(
        cls,
        library: Library,
        reader: Reader,
        *,
        folder: Path | None = None,
        show: Callable[[int], None] | None = None,
    ) -> Interest | None:
        """Learn from what `reader` has given; None where that is nothing, or there are no papers.

        Args:
            library: where the papers are.
            reader: whose opinions, tags and followed authors.
            folder: where statistics of the library are kept; Etude's data folder if None.
            show: told how many papers were read, where the statistics must be learned first.
        """
        opinions = dict(list(reader.opinions().items())[-MOST_OPINIONS:])
        tagged_ids = reader.tags()
        tags = {tag: frozenset(ids) for tag, ids in tagged_ids.items()}
        followed = tuple(reader.following())
        if not opinions and not tags and not followed:
            return None
        corpus = corpus_of(library, folder=folder, show=show)
        if corpus is None:
            return None
        newest_tagged = {key: None for ids in tagged_ids.values() for key in ids}
        tagged = [key for key in newest_tagged if key not in opinions][:MOST_OPINIONS]
        liked = rows_of(library, [key for key, value in opinions.items() if value > 0])
        disliked = rows_of(library, [key for key, value in opinions.items() if value < 0])
        also = rows_of(library, tagged)
        weights = weights_of(
            corpus, [*liked, *also], disliked, [1.0] * len(liked) + [TAGGED_WEIGHT] * len(also)
        )
        return cls(corpus, weights, len(liked) + len(also), len(disliked), followed, tags)

    def score(self, rows: Sequence[Row]) -> NDArray[np.float64]:
        """How much the reader wants each of `rows`; higher is more, 0 says nothing: (rows,)."""
        return self.score_matrix(rows, self.corpus.vocabulary.matrix(rows))

    def score_matrix(self, rows: Sequence[Row], matrix: Matrix) -> NDArray[np.float64]:
        """`score` where the terms of `rows` are at hand."""
        extra = [sum(weight for _, weight in self.raised(row)) for row in rows]
        return np.asarray(matrix @ self.weights, dtype=np.float64) + np.array(extra, dtype=float)

    def raised(self, row: Row) -> list[tuple[str, float]]:
        """What followed authors and tags add to a paper's score."""
        found = [
            (f"author {name}", FOLLOWED)
            for name in followed_among(self.followed, row.get("authors") or ())[:1]
        ]
        text = f" {_plain(_text(row))} " if self.tagged else ""
        for tag, ids in self.tagged.items():
            wanted = _plain(tag)
            if row.get("id") in ids or (len(wanted) > 2 and f" {wanted} " in text):
                found.append((f"tag {tag}", TAGGED))
        return found

    def why(self, row: Row, n: int | None = 5) -> list[tuple[str, float]]:
        """The words of `row` that decided, strongest first, with what each added to its score.

        All of them together, with `n` None, sum up to the score. A negative one spoke against it.
        """
        return self.why_matrix(row, self.corpus.vocabulary.matrix([row]), n)

    def why_matrix(self, row: Row, matrix: Matrix, n: int | None) -> list[tuple[str, float]]:
        """`why` where the terms of `row`, (1, terms), are at hand."""
        vocabulary = self.corpus.vocabulary
        found = [(name, weight, -1) for name, weight in self.raised(row)]
        parts = matrix.data * self.weights[matrix.indices]
        found += [
            ("", float(part), int(term))
            for term, part in zip(matrix.indices, parts, strict=True)
            if part
        ]
        found.sort(key=lambda entry: (-abs(entry[1]), entry[2], entry[0]))
        found = found if n is None else found[:n]
        written = vocabulary.written(row)
        return [
            (name or written.get(term) or vocabulary.name(term), part) for name, part, term in found
        ]

    def words(self, n: int = 10) -> tuple[list[tuple[str, float]], list[tuple[str, float]]]:
        """The terms that speak most for a paper, and those that speak most against it.

        Weights are those of a term that stands alone in its paper.
        """
        order = np.argsort(self.weights, kind="stable")
        name = self.corpus.vocabulary.name
        liked = [int(term) for term in order[::-1][:n] if self.weights[term] > 0]
        against = [int(term) for term in order[:n] if self.weights[term] < 0]
        return (
            [(name(term), float(self.weights[term])) for term in liked],
            [(name(term), float(self.weights[term])) for term in against],
        )


def _text(row: Row) -> str:
    return f"{row['title']} {row['abstract'][:LONGEST_TEXT]}"


def _plain(text: str) -> str:
    """The words of `text` with one space between, without case and accents."""
    plain = text.lower() if text.isascii() else folded(text)
    return _BETWEEN.sub(" ", plain).strip()


def weights_of(
    corpus: Corpus,
    liked: Sequence[Row],
    disliked: Sequence[Row],
    importance: Sequence[float] | None = None,
) -> NDArray[np.float64]:
    """The weight of each term: (terms,), scaled so that scores of the sample have spread one.

    Args:
        corpus: terms, and the sample that likes are told from.
        liked: papers; with none, only what speaks against a paper is learned.
        disliked: papers.
        importance: one for each of `liked`; 1 is a like.
    """
    from scipy import sparse  # pyright: ignore[reportMissingTypeStubs]

    given = {row["id"] for row in (*liked, *disliked)}
    others = corpus.sample[[place for place, key in enumerate(corpus.ids) if key not in given]]
    for_, against = (corpus.vocabulary.matrix(rows) for rows in (liked, disliked))
    weight = np.array(importance if importance is not None else [1.0] * len(liked), dtype=float)
    if not liked and not disliked:
        return np.zeros(corpus.vocabulary.size)
    if not liked:
        direction = _unit((_mean(others) if others.shape[0] else 0) - _mean(against))
    elif not others.shape[0] and not disliked:
        direction = _unit(_mean(for_, weight))
    else:
        rest = _mean(others) if others.shape[0] else np.zeros(corpus.vocabulary.size)
        centroid = _mean(for_, weight) - rest
        direction = _unit(
            _machine(
                cast(Any, sparse).vstack([for_, against, others]).tocsr(), weight, len(disliked)
            )
        )
        direction = direction + CENTROID / np.sqrt(len(liked)) * _unit(centroid)
        if disliked:
            # A paper that is far from every like is no error of the machine's and teaches it
            # nothing; who dislikes it wants less of its kind all the same.
            direction = direction - AGAINST * _unit(_mean(against) - rest)
    spread = float(np.std(corpus.sample @ direction)) or 1.0
    return direction / spread


def _machine(matrix: Matrix, importance: NDArray[np.float64], disliked: int) -> NDArray[np.float64]:
    from sklearn import svm  # pyright: ignore[reportMissingTypeStubs]

    liked = len(importance)
    others = matrix.shape[0] - liked - disliked
    # Between one vote a paper and one vote a side: measured in benchmarks/paper_ranking.py.
    strength = np.sqrt(max(others, 1) / liked)
    votes = np.ones(matrix.shape[0])
    votes[:liked] = strength * importance
    votes[liked : liked + disliked] = strength
    sides: NDArray[np.bool_] = np.arange(int(matrix.shape[0])) < liked
    machine = cast(Any, svm).LinearSVC(C=SOFTNESS, random_state=0, max_iter=2000, tol=1e-3)
    machine.fit(matrix, sides, sample_weight=votes)
    return np.asarray(machine.coef_, dtype=np.float64).ravel()


def _mean(matrix: Matrix, weight: Any = None) -> NDArray[np.float64]:
    share = np.ones(matrix.shape[0]) if weight is None else np.asarray(weight, dtype=float)
    return np.asarray(matrix.T @ (share / share.sum()), dtype=np.float64).ravel()


def _unit(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    length = float(np.linalg.norm(vector))
    return vector / length if length else vector
