"""Statistics of encoded samples."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass
class Tally:
    """A count of samples, with the origins of the first ones."""

    count: int = 0
    first: list[str] = field(default_factory=list[str])

    def add(self, origin: str) -> None:
        """Count one more."""
        self.count += 1
        if len(self.first) < 3:
            self.first.append(origin)

    @property
    def places(self) -> str:
        """The first origins in words."""
        return ", ".join(self.first) + (", ..." if self.count > len(self.first) else "")

    def __str__(self) -> str:
        return f"{self.count:,} ({self.places})"


@dataclass(frozen=True)
class EncodingStats:
    """Statistics of an encoding pass."""

    samples: int
    tokens: int
    trained_tokens: int
    longest: int
    """Tokens of the longest sample."""

    dropped: dict[str, Tally]
    """Dropped samples by reason."""

    cut: Tally
    """Samples whose prompt was truncated on the left."""

    split: Tally
    """Conversations split into one sample per answer, because the chat template renders earlier
    answers differently once later turns follow."""

    folded: Tally
    """Conversations whose system message is part of the user's first turn, because the chat
    template takes none."""

    pairs: int
    """Samples that are pairs of answers."""

    desirable: int
    undesirable: int
    """Samples that are unpaired preferences."""

    histogram: list[tuple[int, int, int]]
    """Lengths as (from, up to and including, samples)."""


@dataclass
class Counts:
    """Counts samples as they are encoded."""

    lengths: array[int] = field(default_factory=lambda: array("i"))
    """Tokens of each sample's longest conversation."""

    tokens: int = 0
    trained: int = 0
    pairs: int = 0
    desirable: int = 0
    undesirable: int = 0
    dropped: dict[str, Tally] = field(default_factory=dict[str, Tally])
    cut: Tally = field(default_factory=Tally)
    split: Tally = field(default_factory=Tally)
    folded: Tally = field(default_factory=Tally)

    def add(self, sides: Sequence[int], trained: int, desirable: bool | None) -> None:
        """Count an encoded sample.

        Args:
            sides: tokens of its conversations, two for a pair.
            trained: how many of them are targets.
            desirable: of an unpaired preference, whether it is.
        """
        self.lengths.append(max(sides))
        self.tokens += sum(sides)
        self.trained += trained
        self.pairs += len(sides) == 2
        self.desirable += desirable is True
        self.undesirable += desirable is False

    def stats(self) -> EncodingStats:
        """Return the statistics."""
        return EncodingStats(
            samples=len(self.lengths),
            tokens=self.tokens,
            trained_tokens=self.trained,
            longest=max(self.lengths, default=0),
            dropped=self.dropped,
            cut=self.cut,
            split=self.split,
            folded=self.folded,
            pairs=self.pairs,
            desirable=self.desirable,
            undesirable=self.undesirable,
            histogram=histogram(self.lengths),
        )


def histogram(lengths: Sequence[int], bars: int = 12) -> list[tuple[int, int, int]]:
    """Count lengths in at most `bars` ranges of one round width: (from, to inclusive, count)."""
    if not lengths:
        return []
    longest = max(lengths)
    widths = (step * 10**power for power in range(10) for step in (1, 2, 5))
    width = next(width for width in widths if width * bars >= longest)
    counts = np.bincount((np.asarray(lengths) - 1) // width)
    return [
        (place * width + 1, (place + 1) * width, int(count)) for place, count in enumerate(counts)
    ]
