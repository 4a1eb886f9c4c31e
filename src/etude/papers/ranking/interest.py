"""Model of a user's interest: a linear model with one weight per term.

A linear support vector machine separates liked papers from a sample of all papers and from disliked
ones (as in arxiv-sanity-lite, which has no dislikes). The centroid of the liked papers is added to
it, with a weight that falls with the number of likes, since three papers are too few to determine
which of their words matter. Both are weights of terms, and so is their sum: the score of a paper is
the sum of its terms' contributions, which the explanation shows completely. The unit is the
standard deviation of scores over all papers.
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
"""Weight of the centroid relative to the machine with one like; it falls with more."""
AGAINST = 0.3
"""Weight of the part that points away from disliked papers."""
FOLLOWED = 3.0
"""Bonus of a followed author, in standard deviations: enough for the first page of most days."""
TAGGED = 0.5
"""Bonus of a paper that has or mentions a tag."""
TAGGED_WEIGHT = 0.5
"""Importance of a tagged paper relative to a like."""
MOST_OPINIONS = 2000
"""Maximum number of opinions used, newest first, which bounds the training time."""

_BETWEEN = re.compile(r"[\W_]+")


@dataclass(frozen=True)
class Interest:
    """A user's interest; made by `fit`.

    Attributes:
        corpus: the terms.
        weights: (terms,), in standard deviations of scores.
        likes: number of liked papers, tagged ones included.
        dislikes: number of disliked papers.
        followed: the followed authors.
        tagged: tags with the ids of their papers.
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
        """Fit the model to a user's feedback; return None without feedback or papers.

        Args:
            library: the papers.
            reader: the user's opinions, tags and followed authors.
            folder: folder of the corpus statistics; Etude's data folder if None.
            show: called with the number of papers read while the statistics are computed.
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
        """Return the score of each of `rows`, (rows,); 0 is neutral."""
        return self.score_matrix(rows, self.corpus.vocabulary.matrix(rows))

    def score_matrix(self, rows: Sequence[Row], matrix: Matrix) -> NDArray[np.float64]:
        """Return `score`, given the term matrix of `rows`."""
        extra = [sum(weight for _, weight in self.raised(row)) for row in rows]
        return np.asarray(matrix @ self.weights, dtype=np.float64) + np.array(extra, dtype=float)

    def raised(self, row: Row) -> list[tuple[str, float]]:
        """Return the bonuses of followed authors and tags in a paper's score."""
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
        """Return the terms of `row` and their contributions to its score, strongest first.

        With `n` None, all contributions are returned; they sum to the score.
        """
        return self.why_matrix(row, self.corpus.vocabulary.matrix([row]), n)

    def why_matrix(self, row: Row, matrix: Matrix, n: int | None) -> list[tuple[str, float]]:
        """Return `why`, given the term matrix of `row`, (1, terms)."""
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
        """Return the terms with the most positive and the most negative weights.

        Weights are those of a paper with only that term.
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
    """Return the words of `text` separated by single spaces, without case and accents."""
    plain = text.lower() if text.isascii() else folded(text)
    return _BETWEEN.sub(" ", plain).strip()


def weights_of(
    corpus: Corpus,
    liked: Sequence[Row],
    disliked: Sequence[Row],
    importance: Sequence[float] | None = None,
) -> NDArray[np.float64]:
    """Return the weight of each term, (terms,), scaled to unit deviation of the sample's scores.

    Args:
        corpus: terms, and the sample of negative examples.
        liked: liked papers; without any, only negative weights are learned.
        disliked: disliked papers.
        importance: weight of each of `liked`; 1 is a like.
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
            # A disliked paper far from every like is no error of the machine, which learns nothing
            # from it, yet the user wants fewer papers of its kind.
            direction = direction - AGAINST * _unit(_mean(against) - rest)
    spread = float(np.std(corpus.sample @ direction)) or 1.0
    return direction / spread


def _machine(matrix: Matrix, importance: NDArray[np.float64], disliked: int) -> NDArray[np.float64]:
    from sklearn import svm  # pyright: ignore[reportMissingTypeStubs]

    liked = len(importance)
    others = matrix.shape[0] - liked - disliked
    # Between equal weight per paper and per class: measured in benchmarks/paper_ranking.py.
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
