"""Inference of the ranking model: hash tables and tree ensembles from one small file, with NumPy.

    words      trees: P(word is in the summary)
    linear     ridge regression on hashed words and bigrams, quantised to 8 bits
    sentences  trees on the results of both and the features: the score of a sentence

The file is written by benchmarks/train_summaries.py.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

from etude.papers.summaries import features
from etude.papers.summaries.features import Abstract, Array

FILE = "ranker.npz"


@dataclass(frozen=True)
class Forest:
    """Sum of regression trees: T trees of at most N nodes.

    A leaf is its own child, so that after `depth` steps every row is at a leaf.
    """

    feature: NDArray[np.int64]
    """(T, N) feature column of a node."""
    threshold: Array
    """(T, N) threshold; values up to it go to the left child."""
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    value: Array
    """(T, N) values of leaves."""
    base: float
    depth: int

    @classmethod
    def from_file(cls, file: Any, name: str) -> Forest:
        """Read the forest that `arrays` wrote under `name`."""
        left = file[f"{name}_left"].astype(np.int64)
        base, depth = (float(number) for number in file[f"{name}_shape"])
        return cls(
            file[f"{name}_feature"].astype(np.int64),
            file[f"{name}_threshold"].astype(np.float64),
            left,
            file[f"{name}_right"].astype(np.int64),
            file[f"{name}_value"].astype(np.float64),
            base,
            int(depth),
        )

    def arrays(self, name: str) -> dict[str, NDArray[Any]]:
        """Return what `from_file` reads."""
        return {
            f"{name}_feature": self.feature.astype(np.int16),
            f"{name}_threshold": self.threshold.astype(np.float32),
            f"{name}_left": self.left.astype(np.int16),
            f"{name}_right": self.right.astype(np.int16),
            f"{name}_value": self.value.astype(np.float32),
            f"{name}_shape": np.array([self.base, self.depth], dtype=np.float64),
        }

    def __call__(self, rows: Array) -> Array:
        """Return the sum of all trees for each row, (n,), of features (n, columns)."""
        count = len(rows)
        flat = np.ascontiguousarray(rows.T).ravel()
        at = np.arange(count)
        total = np.full(count, self.base)
        for tree in range(len(self.feature)):
            where = self.feature[tree] * count
            threshold, left, right = self.threshold[tree], self.left[tree], self.right[tree]
            node = np.zeros(count, dtype=np.int64)
            for _ in range(self.depth):
                goes = flat.take(where.take(node) + at) <= threshold.take(node)
                node = np.where(goes, left.take(node), right.take(node))
            total += self.value[tree].take(node)
        return total


@dataclass(frozen=True)
class Ranker:
    """Scores the sentences of abstracts."""

    version: str
    idf: Array
    """(`BUCKETS`,) rarity of hashed words."""
    rates: Array
    """(`BUCKETS`,) share of a hashed word's abstracts whose summary has it."""
    linear: NDArray[np.int64]
    """(`GRAMS`,) weights of the ridge regression, in `scale`."""
    scale: float
    words: Forest
    sentences: Forest

    @classmethod
    def from_file(cls, file: Any) -> Ranker:
        """Load the model from a file of `arrays`."""
        return cls(
            str(file["version"]),
            file["idf"].astype(np.float64) / 20.0,
            file["rates"].astype(np.float64) / 255.0,
            file["linear"].astype(np.int64),
            float(file["scale"]),
            Forest.from_file(file, "words"),
            Forest.from_file(file, "sentences"),
        )

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays to write to a file."""
        return {
            "version": np.array(self.version),
            "idf": np.round(self.idf * 20.0).astype(np.uint8),
            "rates": np.round(self.rates * 255.0).astype(np.uint8),
            "linear": self.linear.astype(np.int8),
            "scale": np.array(self.scale),
            **self.words.arrays("words"),
            **self.sentences.arrays("sentences"),
        }

    def scores(self, papers: Sequence[tuple[str, Sequence[str]]]) -> list[Array]:
        """Return a score for each sentence of each paper, higher for a better summary.

        Args:
            papers: title and sentences (at least one), as plain text.
        """
        if not papers:
            return []
        abstracts = [features.read(title, parts) for title, parts in papers]
        rarities = [features.rarity(abstract, self.idf) for abstract in abstracts]
        likely = self._likely(abstracts, rarities)
        rows = [
            features.sentence_features(abstract, idf, words, self._linear(abstract))
            for abstract, idf, words in zip(abstracts, rarities, likely, strict=True)
        ]
        scored = np.round(self.sentences(np.concatenate(rows)), 6)
        return np.split(scored, np.cumsum([len(row) for row in rows])[:-1])

    def _likely(self, abstracts: Sequence[Abstract], rarities: Sequence[Array]) -> list[Array]:
        rows = [
            np.column_stack([features.word_features(abstract, idf), self._rates(abstract)])
            for abstract, idf in zip(abstracts, rarities, strict=True)
        ]
        chance = 1.0 / (1.0 + np.exp(-self.words(np.concatenate(rows))))
        return np.split(features.rounded(chance), np.cumsum([len(row) for row in rows])[:-1])

    def _rates(self, abstract: Abstract) -> Array:
        return self.rates[features.places(abstract)]

    def _linear(self, abstract: Abstract) -> Array:
        sums = [
            int(self.linear[features.grams(row, abstract.vocabulary)].sum()) if row else 0
            for row in abstract.words
        ]
        return np.array(sums, dtype=np.float64)[:, None] * self.scale


@cache
def ranker() -> Ranker:
    """Return the model shipped with the package."""
    with (
        resources.files("etude.papers.summaries").joinpath(FILE).open("rb") as stream,
        np.load(stream, allow_pickle=False) as file,
    ):
        return Ranker.from_file(file)
