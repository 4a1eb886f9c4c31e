"""Words to tokens, and long sentences to windows.

Words are given to the tokenizer as words, and its pieces are told apart by word, never by offsets:
those of SentencePiece include the space before a word, and shift. Only the first piece of a word
carries its tag.

A sentence that is longer than a window is read in several that overlap; each word is trained,
scored and predicted in the one in which its nearest cut is farthest away, and in that one only.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from math import inf
from typing import Any, cast

import numpy as np

from etude.core.errors import DataError, did_you_mean
from etude.core.progress import Progress
from etude.tuning.config.sections.data import DataSpec
from etude.tuning.data.counts import Counts, Tally
from etude.tuning.data.encoded import EncodedSample, EncodedSet, TaggedWords
from etude.tuning.data.schema import Sample
from etude.tuning.data.tagging.schemes import SchemeName, TrainedScheme, entities, scheme_of, write

BATCH = 512
"""Sentences per tokenizer call."""


@dataclass(frozen=True)
class Window:
    """A part of a sentence that is read at once; numbers are of words."""

    start: int
    end: int
    own_start: int
    own_end: int
    """The words from `own_start` to `own_end` are scored in this window."""


def windows(pieces: Sequence[int], room: int, overlap: float) -> list[Window]:
    """Cut a sentence into windows of at most `room` pieces.

    Args:
        pieces: pieces of each word, each at most `room`.
        room: pieces that a window may hold.
        overlap: share of a window that it has in common with the next, 0 to 0.5.

    Returns:
        Windows in order; every word is in at least one, and is scored in exactly one. The last is
        as full as it can be.
    """
    ends = [0, *accumulate(pieces)]
    count = len(pieces)
    if ends[-1] <= room:
        return [Window(0, count, 0, count)]
    spans: list[tuple[int, int]] = []
    start = 0
    while True:
        end = bisect_right(ends, ends[start] + room) - 1
        if end >= count:
            # Context that costs nothing: words before that there is room for.
            start = bisect_left(ends, ends[count] - room)
            spans.append((start, count))
            break
        spans.append((start, end))
        following = bisect_left(ends, ends[end] - overlap * room)
        start = min(max(following, start + 1), end)
    owners = [_owner(word, spans, ends, count) for word in range(count)]
    found: list[Window] = []
    for number, (start, end) in enumerate(spans):
        own = [word for word in range(start, end) if owners[word] == number]
        if own:
            found.append(Window(start, end, own[0], own[-1] + 1))
    return found


def _owner(word: int, spans: Sequence[tuple[int, int]], ends: Sequence[int], count: int) -> int:
    """Return the window in which a word is farthest from a cut; an end of the sentence is none."""
    best, farthest = 0, -1.0
    for number, (start, end) in enumerate(spans):
        if start <= word < end:
            left = inf if start == 0 else ends[word] - ends[start]
            right = inf if end == count else ends[end] - ends[word + 1]
            if min(left, right) > farthest:
                best, farthest = number, float(min(left, right))
    return best


@dataclass
class WordCounts:
    """What happened to words and sentences on the way to tokens."""

    sentences: int = 0
    words: int = 0
    windowed: Tally = field(default_factory=Tally)
    windows: int = 0
    """Windows of the sentences that have several."""
    unread: Tally = field(default_factory=Tally)
    """Words without a piece, given as the unknown token."""
    cut: Tally = field(default_factory=Tally)
    """Words with more pieces than a window holds."""


class WordEncoder:
    """Encoder of words and tags; adds the tokenizer's special tokens.

    Args:
        tokenizer: the model's, a fast one.
        spec: the data section; `window_overlap` is used.
        max_length: tokens of a window, special tokens included.
        labels: tags, in the order of the model's outputs.

    Raises:
        DataError: the tokenizer cannot tell which pieces belong to a word, or a window has no room.
    """

    def __init__(
        self, tokenizer: Any, spec: DataSpec, max_length: int, labels: Sequence[str]
    ) -> None:
        self.tokenizer = tokenizer
        self.spec = spec
        self.max_length = max_length
        self.labels = tuple(labels)
        self.scheme: TrainedScheme = scheme_of(self.labels)
        self._index = {label: index for index, label in enumerate(self.labels)}
        if not getattr(tokenizer, "is_fast", False):
            raise DataError(
                f"{type(tokenizer).__name__} cannot tell which pieces belong to a word; use a "
                "model with a tokenizer.json"
            )
        self._prefix, self._suffix = self._special()
        self._space = self._needs_space()
        self.room = max_length - len(self._prefix) - len(self._suffix)
        if self.room < 1:
            raise DataError(f"data.max_length {max_length} leaves no room for words")

    def _tokens(self, sentences: Sequence[Sequence[str]], *, special: bool = False) -> Any:
        return self.tokenizer(
            [list(words) for words in sentences],
            is_split_into_words=True,
            add_special_tokens=special,
            truncation=False,
            verbose=False,
        )

    def _special(self) -> tuple[list[int], list[int]]:
        """Return the special tokens before and after a text."""
        bare = cast("list[int]", self._tokens([["a"]])["input_ids"][0])
        whole = cast("list[int]", self._tokens([["a"]], special=True)["input_ids"][0])
        for start in range(len(whole) - len(bare) + 1):
            if whole[start : start + len(bare)] == bare:
                return whole[:start], whole[start + len(bare) :]
        return [], []

    def _needs_space(self) -> bool:
        """Return whether words after the first need a space before them to be as in a text.

        Byte-level vocabularies take the space along with a word; some add it to words by
        themselves, others do not.
        """
        text = cast("list[int]", self.tokenizer("a b", add_special_tokens=False)["input_ids"])
        plain = cast("list[int]", self._tokens([["a", "b"]])["input_ids"][0])
        spaced = cast("list[int]", self._tokens([["a", " b"]])["input_ids"][0])
        return plain != text and spaced == text

    def pieces(self, sentences: Sequence[Sequence[str]]) -> list[list[list[int]]]:
        """Return the tokens of each word of each sentence; a word that has none has an empty list.

        A tokenizer may read a word as nothing: control characters, a variation selector.
        """
        given = sentences
        if self._space:
            given = [[words[0], *(f" {word}" for word in words[1:])] for words in sentences]
        encoded = self._tokens(given)
        found: list[list[list[int]]] = []
        for number, words in enumerate(sentences):
            pieces: list[list[int]] = [[] for _ in words]
            ids = cast("list[int]", encoded["input_ids"][number])
            places = cast("list[int | None]", encoded.word_ids(number))
            for token, word in zip(ids, places, strict=True):
                if word is not None:
                    pieces[word].append(token)
            found.append(pieces)
        return found

    def samples(
        self,
        words: Sequence[str],
        pieces: list[list[int]],
        tags: Sequence[int],
        origin: str,
        sentence: int,
        counts: WordCounts | None = None,
    ) -> list[EncodedSample]:
        """Return the windows of one sentence.

        Args:
            words: its words.
            pieces: as `self.pieces` returns them.
            tags: class of each word.
            origin: of the sentence.
            sentence: its number.
            counts: takes in what happened.
        """
        counts = counts or WordCounts()
        counts.sentences += 1
        counts.words += len(words)
        fitted: list[list[int]] = []
        for place, tokens in enumerate(pieces, start=1):
            if not tokens:
                counts.unread.add(f"{origin}, word {place}")
            if len(tokens) > self.room:
                counts.cut.add(f"{origin}, word {place}")
            fitted.append(tokens[: self.room] or [self._unknown()])
        cut = windows([len(tokens) for tokens in fitted], self.room, self.spec.window_overlap)
        if len(cut) > 1:
            counts.windowed.add(origin)
            counts.windows += len(cut)
        return [self._window(window, fitted, tags, origin, sentence) for window in cut]

    def _window(
        self,
        window: Window,
        pieces: Sequence[Sequence[int]],
        tags: Sequence[int],
        origin: str,
        sentence: int,
    ) -> EncodedSample:
        read = pieces[window.start : window.end]
        firsts = len(self._prefix) + np.cumsum([0, *map(len, read)])[:-1]
        own = slice(window.own_start - window.start, window.own_end - window.start)
        ids = [*self._prefix, *(token for tokens in read for token in tokens), *self._suffix]
        trained = np.zeros(len(ids), dtype=np.bool_)
        trained[firsts[own]] = True
        scored = TaggedWords(
            firsts[own].astype(np.int32),
            np.asarray(tags[window.own_start : window.own_end], dtype=np.int32),
            sentence,
        )
        return EncodedSample(np.asarray(ids, dtype=np.int32), trained, origin, words=scored)

    def _unknown(self) -> int:
        """Return the token for a word that the tokenizer reads as nothing."""
        for name in ("unk_token_id", "pad_token_id", "eos_token_id"):
            token = getattr(self.tokenizer, name, None)
            if token is not None:
                return int(token)
        return 0

    def classes(self, sample: Sample, scheme: SchemeName) -> list[int]:
        """Return the class of each word of a sample, its tags converted from `scheme`.

        Raises:
            DataError: an entity has a type that the model has no outputs for.
        """
        tags = write(entities(sample.tags, scheme), len(sample.words), self.scheme)
        try:
            return [self._index[tag] for tag in tags]
        except KeyError as error:
            tag = str(error.args[0])
            types = sorted({label[2:] for label in self.labels if label != "O"})
            near = did_you_mean(tag[2:], types)
            raise DataError(
                f"{sample.origin}: the training data have no entities of type {tag[2:]!r}{near}"
            ) from None

    def encode_all(
        self,
        samples: Iterable[Sample],
        scheme: SchemeName,
        counts: WordCounts,
        progress: Progress | None = None,
    ) -> EncodedSet:
        """Encode all sentences; a sentence of several windows gives several samples.

        Args:
            samples: sentences.
            scheme: of their tags.
            counts: takes in what happened.
            progress: told of each sentence.
        """
        lengths = Counts()
        kept: list[EncodedSample] = []
        sources: list[Sample] = []
        listed = list(samples)
        for start in range(0, len(listed), BATCH):
            batch = listed[start : start + BATCH]
            for place, (sample, pieces) in enumerate(
                zip(batch, self.pieces([one.words for one in batch]), strict=True)
            ):
                classes = self.classes(sample, scheme)
                for window in self.samples(
                    sample.words, pieces, classes, sample.origin, start + place, counts
                ):
                    kept.append(window)
                    sources.append(sample)
                    lengths.add([len(window)], window.trained_tokens, None)
            if progress is not None:
                progress.advance(len(batch))
        return EncodedSet(kept, sources, lengths.stats())
