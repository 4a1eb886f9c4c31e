"""BM25: documents ranked by the words that they share with a query (Robertson and Zaragoza 2009).

    score(q, d) = Σ_w in q  idf(w) · f(w, d) (k + 1) / (f(w, d) + k (1 − b + b |d| / m))
    idf(w)      = ln(1 + (N − n_w + ½) / (n_w + ½))

f(w, d) is how often the word w is in d, |d| the number of d's words, m its mean, n_w the number of
the N documents that have w; k = 1.2 and b = 0.75, as in Lucene. Words are those of ROUGE:
stemmed, of any script. A word that a query repeats counts as often.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from etude.tuning.metrics.rouge import split_words

K, B = 1.2, 0.75


class BM25:
    """An index of documents.

    Args:
        documents: their texts.
    """

    def __init__(self, documents: Sequence[str]) -> None:
        counts = [Counter(word.key for word in split_words(text)) for text in documents]
        lengths = np.asarray([count.total() for count in counts], dtype=np.float64)
        mean = lengths.mean() if lengths.sum() else 1.0
        self.size = len(documents)
        found: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
        for place, count in enumerate(counts):
            for word, times in count.items():
                found[word].append((place, times))
        self._weights: dict[str, tuple[NDArray[np.int64], NDArray[np.float64]]] = {}
        for word, entries in found.items():
            places = np.asarray([place for place, _ in entries])
            times = np.asarray([times for _, times in entries], dtype=np.float64)
            idf = np.log1p((self.size - len(places) + 0.5) / (len(places) + 0.5))
            length = 1 - B + B * lengths[places] / mean
            self._weights[word] = places, idf * times * (K + 1) / (times + K * length)

    def scores(self, query: str) -> NDArray[np.float64]:
        """Return the score of each document, 0 for those that share no word."""
        total = np.zeros(self.size)
        for word in split_words(query):
            known = self._weights.get(word.key)
            if known is not None:
                places, weights = known
                total[places] += weights
        return total

    def order(self, query: str) -> NDArray[np.int64]:
        """Return the documents that share a word with the query, the best first.

        Of equal scores the earlier document comes first.
        """
        scores = self.scores(query)
        best = np.argsort(-scores, kind="stable")
        return best[: int((scores > 0).sum())]
