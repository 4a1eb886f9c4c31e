"""Encoded samples: tokens and their loss mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from etude.tuning.data.counts import EncodingStats
from etude.tuning.data.schema import Sample
from etude.tuning.images.encoded import EncodedImage


@dataclass(frozen=True, slots=True, eq=False)
class TaggedWords:
    """The words that one window of a sentence is trained and scored on, W of them."""

    pieces: NDArray[np.int32]
    """(W,) token of each word's first piece."""

    tags: NDArray[np.int32]
    """(W,) class of each word."""

    sentence: int
    """Number of the sentence; its windows follow each other."""


@dataclass(frozen=True, slots=True, eq=False)
class EncodedSample:
    """The tokens of one sample."""

    input_ids: NDArray[np.int32]
    """(T,)"""

    trained: NDArray[np.bool_]
    """(T,) whether token t is a target; `trained[0]` is False."""

    origin: str
    """Origin of the sample, such as `train.jsonl:12`."""

    rejected: EncodedSample | None = None
    """For a pair, the conversation with the rejected answer; this one has the chosen."""

    desirable: bool | None = None
    """For an unpaired preference, whether it is desirable."""

    label: int | float | tuple[int, ...] | None = None
    """For classification, the class index; with several labels, their indices; or the number. For
    reranking, the first stage's rank of each relevant document, 0 for one that it did not find."""

    token_types: NDArray[np.int8] | None = None
    """(T,) For a pair of texts, which of them each token belongs to; None: the model has no use for
    it, or there is one text."""

    positive: EncodedSample | None = None
    """For embeddings, the text that this one belongs with."""

    negative: EncodedSample | None = None
    """For embeddings, a text that this one does not belong with."""

    candidates: tuple[EncodedSample, ...] = ()
    """For reranking, the same query with its other documents; this one has a relevant document."""

    words: TaggedWords | None = None
    """For token classification, where its words are, and their tags."""

    image: EncodedImage | None = None
    """For an image, its pixels; `input_ids` is then a fingerprint, of as many numbers as it counts
    tokens."""

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def trained_tokens(self) -> int:
        """Number of targets, without those of `rejected`; a class counts as one."""
        return int(self.trained.sum()) if self.label is None else 1

    @property
    def sides(self) -> tuple[EncodedSample, ...]:
        """The texts of the sample: itself, its rejected answer, positive, negative, candidates."""
        others = (self.rejected, self.positive, self.negative)
        return (self, *(side for side in others if side is not None), *self.candidates)

    @property
    def longest(self) -> int:
        """Tokens of its longest conversation."""
        return max(len(side) for side in self.sides)


@dataclass(frozen=True)
class EncodedSet:
    """Encoded samples, in order."""

    samples: Sequence[EncodedSample]
    sources: list[Sample]
    """The source of `samples`, with truncated prompts; empty if only tokens were
    kept."""

    stats: EncodingStats

    @property
    def lengths(self) -> list[int]:
        """Tokens of each sample's longest conversation."""
        return [sample.longest for sample in self.samples]
