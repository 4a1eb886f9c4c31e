"""Near-duplicate detection by MinHash and locality-sensitive hashing.

A text is the set S of its shingles, runs of w words. Two texts are near-duplicates where

    J(S, T) = |S ∩ T| / |S ∪ T| ≥ 0.8

For a random order of all shingles, the chance that S and T have the same first one is J
(Broder 1997). So 64 orders give a signature of 64 numbers, of which a share J agrees. Cut into 16
bands of 4, texts with J = 0.8 agree in a whole band with a chance of 1 − (1 − 0.8⁴)¹⁶ = 0.9998;
those that do are compared exactly. Finding a text's near-duplicates costs the same however many
texts were seen.
"""

from __future__ import annotations

import re
import zlib
from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

THRESHOLD = 0.8
BANDS, ROWS = 16, 4
PRIME = 2**31 - 1

_COMPARED = 32
"""Texts that share a band and are compared exactly, at most."""

_WORD = re.compile(r"\w+|[^\w\s]")


class NearDuplicates:
    """Index of texts for near-duplicate search.

    Args:
        width: words per shingle. Larger values distinguish texts with similar vocabulary; it must
            be well below the length of the texts.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        # The orders are fixed, not seeded, so that results are reproducible.
        generator = np.random.default_rng(0)
        shape = (BANDS * ROWS, 1)
        self._scale = generator.integers(1, PRIME, shape, dtype=np.uint64)
        self._shift = generator.integers(0, PRIME, shape, dtype=np.uint64)
        self._texts: list[frozenset[int]] = []
        self._buckets: defaultdict[tuple[int, bytes], list[int]] = defaultdict(list)

    def find(self, text: str) -> bool:
        """Return whether a near-duplicate of `text` was added before."""
        return self.nearest(text) is not None

    def nearest(self, text: str) -> int | None:
        """Return the index of the first added near-duplicate of `text`, or None."""
        shingles = self._shingles(text)
        return self._near(shingles, self._bands(shingles))

    def add(self, text: str) -> None:
        """Add a text."""
        shingles = self._shingles(text)
        for band in self._bands(shingles):
            self._buckets[band].append(len(self._texts))
        self._texts.append(shingles)

    def _near(self, shingles: frozenset[int], bands: list[tuple[int, bytes]]) -> int | None:
        # Thousands of texts from one template can share a band without being near-duplicates: only
        # the first are compared, so that the cost per text stays constant.
        candidates = {
            number for band in bands for number in self._buckets.get(band, ())[:_COMPARED]
        }
        near = (n for n in sorted(candidates) if jaccard(shingles, self._texts[n]) >= THRESHOLD)
        return next(near, None)

    def _shingles(self, text: str) -> frozenset[int]:
        words = _WORD.findall(text.lower())
        count = max(1, len(words) - self.width + 1)
        return frozenset(
            zlib.crc32(" ".join(words[start : start + self.width]).encode())
            for start in range(count)
        )

    def _bands(self, shingles: frozenset[int]) -> list[tuple[int, bytes]]:
        values: NDArray[np.uint64] = np.fromiter(shingles, dtype=np.uint64, count=len(shingles))
        # Both factors are under 2³¹ after the first remainder, so the product fits 64 bits.
        orders = (self._scale * (values % np.uint64(PRIME)) + self._shift) % np.uint64(PRIME)
        signature = orders.min(axis=1).astype(np.uint32).reshape(BANDS, ROWS)
        return [(band, signature[band].tobytes()) for band in range(BANDS)]


def jaccard(first: frozenset[int], second: frozenset[int]) -> float:
    """Return |S ∩ T| / |S ∪ T|."""
    shared = len(first & second)
    return shared / (len(first) + len(second) - shared)
