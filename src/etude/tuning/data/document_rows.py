r"""Rows of documents: every token is a target exactly once, whatever the length of a document.

    document      | a b c d e f g h          the separator before it, the end token after it
    rows of 4     | a b c                    targets a b c
                        c d e f              targets   d e f
                              f g h |        targets       g h |

The separator is the tokenizer's start token, or the end token where it has none, so that the first
token of a document has something to be predicted from. A row after the first begins with the token
before it, as context. For evaluation rows may overlap by more: a window of `size` tokens then
scores the last `stride` of them only (Press et al. 2021, section 3; strided evaluation).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, islice
from typing import Any, cast

import numpy as np

from etude.core.errors import DataError
from etude.core.progress import Progress
from etude.tuning.config.sections.data import DataSpec
from etude.tuning.data.counts import Counts
from etude.tuning.data.encode import Encoder
from etude.tuning.data.encoded import EncodedSample, EncodedSet
from etude.tuning.data.schema import Sample

BATCH = 64
"""Documents tokenised in one call."""


class DocumentEncoder(Encoder):
    """Encoder of whole documents; conversations are encoded as by `Encoder`.

    Raises:
        DataError: at construction, if the tokenizer has no end token.
    """

    def __init__(self, tokenizer: Any, spec: DataSpec) -> None:
        super().__init__(tokenizer, spec)
        if self._plain is None:
            raise DataError(
                "the tokenizer has no end token (eos_token), which documents are separated by"
            )
        self.document_end = self._plain.end_id
        """The token after a document."""
        self.separator: list[int] = list(self._plain.start_ids) or [self.document_end]
        """The tokens before a document."""

    def text_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the tokens of each text, without the separator and the end token."""
        return self._marker.tokenize(list(texts))

    def document_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the tokens of whole documents: separator, text, end token."""
        return [
            [
                *self.separator,
                *ids,
                *([] if ids[-1:] == [self.document_end] else [self.document_end]),
            ]
            for ids in self.text_ids(texts)
        ]

    def encode_documents(
        self,
        documents: Iterable[Sample],
        progress: Progress | None = None,
        *,
        stride: int | None = None,
        keep_sources: bool = False,
    ) -> EncodedSet:
        """Cut documents into rows of `data.max_length` tokens; no token is left out.

        Args:
            documents: plain texts, read as a stream.
            progress: reports each batch of documents; the caller starts and ends it.
            stride: targets of an overlapping row; None: rows overlap by one token.
            keep_sources: whether `sources` gets the document of each row.
        """
        counts = Counts()
        rows: list[EncodedSample] = []
        sources: list[Sample] = []
        stream = iter(documents)
        while batch := list(islice(stream, BATCH)):
            encoded = self.document_ids([cast("str", sample.text) for sample in batch])
            for sample, ids in zip(batch, encoded, strict=True):
                for row in cut_rows(ids, self.spec.max_length, sample.origin, stride):
                    counts.add([len(row)], row.trained_tokens, None)
                    rows.append(row)
                    if keep_sources:
                        sources.append(sample)
            if progress is not None:
                progress.advance(len(batch))
        return EncodedSet(rows, sources, counts.stats())


def cut_rows(
    ids: Sequence[int], size: int, origin: str, stride: int | None = None
) -> list[EncodedSample]:
    """Return a document's tokens as rows of at most `size`, in order."""
    tokens = np.asarray(ids, dtype=np.int32)
    spans = row_spans(len(ids), size, stride)
    rows: list[EncodedSample] = []
    for start, first, stop in spans:
        trained = np.zeros(stop - start, dtype=np.bool_)
        trained[first - start :] = True
        place = origin if len(spans) == 1 else f"{origin}, tokens {first:,} to {stop - 1:,}"
        rows.append(EncodedSample(tokens[start:stop], trained, place))
    return rows


def row_spans(length: int, size: int, stride: int | None = None) -> list[tuple[int, int, int]]:
    """Return (start, first target, stop) of each row of `length` tokens.

    Every token but the first is a target of exactly one row.

    Args:
        length: at least 2.
        size: tokens of a row, at least 2.
        stride: targets of a row after the first, below `size`; None: `size` - 1, and the last row
            is as short as what is left.
    """
    stop = min(size, length)
    spans = [(0, 1, stop)]
    while stop < length:
        first = stop
        if stride is None:
            stop = min(first - 1 + size, length)
            spans.append((first - 1, first, stop))
        else:
            stop = min(first + stride, length)
            spans.append((max(0, stop - size), first, stop))
    return spans


def by_document(encoded: EncodedSet) -> Iterator[tuple[Sample, list[EncodedSample]]]:
    """Yield each document with its rows, of a set that kept its sources."""
    pairs = zip(encoded.sources, encoded.samples, strict=True)
    for _, rows in groupby(pairs, key=lambda pair: id(pair[0])):
        listed = list(rows)
        yield listed[0][0], [row for _, row in listed]


def mixed(train: EncodedSet, replay: EncodedSet, share: float, seed: int) -> EncodedSet:
    """Return the rows of a domain, and rows of general text after them.

    General rows are drawn at random until they are `share` of all training tokens, or none is left.

    Args:
        train: rows of the domain.
        replay: rows of general text.
        share: of the trained tokens, between 0 and 1.
        seed: of the draw.
    """
    wanted = share / (1 - share) * train.stats.trained_tokens
    counts = Counts()
    rows = list(train.samples)
    for row in rows:
        counts.add([len(row)], row.trained_tokens, None)
    count = len(replay.samples)
    order: list[int] = np.random.default_rng([seed, 1]).permutation(count).tolist()
    drawn = 0
    for place in order:
        if drawn >= wanted:
            break
        row = replay.samples[place]
        drawn += row.trained_tokens
        counts.add([len(row)], row.trained_tokens, None)
        rows.append(row)
    return EncodedSet(rows, [], counts.stats())
