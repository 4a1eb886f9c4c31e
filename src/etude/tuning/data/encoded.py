"""Encoded samples: tokens, and which of them are trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from etude.tuning.data.counts import EncodingStats
from etude.tuning.data.schema import Sample


@dataclass(frozen=True, slots=True, eq=False)
class EncodedSample:
    """The tokens of one sample."""

    input_ids: NDArray[np.int32]
    """(T,)"""

    trained: NDArray[np.bool_]
    """(T,) whether token t is a target; `trained[0]` is False."""

    origin: str
    """Where the sample was read."""

    rejected: EncodedSample | None = None
    """Of a pair, the conversation that ends in the worse answer; this one has the better."""

    desirable: bool | None = None
    """Of an unpaired preference, whether it is desirable."""

    label: int | None = None
    """Of a sample that is classified, its class."""

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def trained_tokens(self) -> int:
        """How many targets there are, those of `rejected` not counted: a class is one."""
        return int(self.trained.sum()) if self.label is None else 1

    @property
    def sides(self) -> tuple[EncodedSample, ...]:
        """The conversations it is made of: two of a pair, the better first, else itself."""
        return (self,) if self.rejected is None else (self, self.rejected)

    @property
    def longest(self) -> int:
        """Tokens of its longest conversation."""
        return max(len(side) for side in self.sides)


@dataclass(frozen=True)
class EncodedSet:
    """The samples kept, in order."""

    samples: Sequence[EncodedSample]
    sources: list[Sample]
    """What `samples` were made of, prompts cut where they had to be; empty where only tokens were
    kept."""

    stats: EncodingStats

    @property
    def lengths(self) -> list[int]:
        """Tokens of each sample's longest conversation."""
        return [sample.longest for sample in self.samples]
