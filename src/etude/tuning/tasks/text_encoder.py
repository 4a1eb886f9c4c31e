"""Encoder of texts, pairs of texts and their labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from etude.core.errors import DataError
from etude.core.progress import Progress
from etude.tuning.config.sections.data import DataSpec
from etude.tuning.data.counts import Counts, Tally
from etude.tuning.data.encode import TOO_LONG
from etude.tuning.data.encoded import EncodedSample, EncodedSet
from etude.tuning.data.labels import LabelKind, labels_of, number, rows_named, unknown_labels
from etude.tuning.data.schema import Sample
from etude.tuning.models.heads import Head

BATCH = 512
"""Texts per tokenizer call."""

FAR_TOO_LONG = 4
"""Texts of more than this many times `data.max_length` are named in a note."""

PROBLEMS: Mapping[LabelKind, str] = {
    "class": "single_label_classification",
    "multi_label": "multi_label_classification",
    "number": "regression",
}
"""transformers' `problem_type` of each kind of label."""


@dataclass(frozen=True)
class Tokens:
    """The tokens of a text, or of a pair."""

    ids: list[int]
    types: list[int] | None = None
    """Of a pair, the text that each token belongs to, where the model's tokenizer says so."""


class TextEncoder:
    """Encoder of texts and labels; adds the tokenizer's special tokens.

    A pair is encoded as the tokenizer does it: `[CLS] a [SEP] b [SEP]` with token types for BERT.
    A tokenizer that puts nothing between the two (a decoder's) gets them separated by a line end.

    Args:
        tokenizer: the model's.
        spec: the data section; `max_length` and `too_long` are used.
        labels: names of the classes or labels, in the order of the model's outputs.
        head: kind of labels and what else is saved with the head; None: one class a row.

    Attributes:
        kind: what a label is.
        options: further facts saved with the head, such as thresholds.
        far_too_long: rows whose text has several times `data.max_length` tokens.
    """

    def __init__(
        self,
        tokenizer: Any,
        spec: DataSpec,
        labels: Sequence[str],
        head: Head | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.spec = spec
        self.labels = tuple(labels)
        problem = PROBLEMS["class"] if head is None else head.problem
        self.kind: LabelKind = next(kind for kind, name in PROBLEMS.items() if name == problem)
        self.options: dict[str, Any] = {} if head is None else dict(head.options)
        self.far_too_long: list[str] = []
        self._index = {label: index for index, label in enumerate(self.labels)}
        alone, paired = (tokenizer.num_special_tokens_to_add(pair=pair) for pair in (False, True))
        self._joins_pairs = alone == paired

    @property
    def thresholds(self) -> NDArray[np.float64] | None:
        """The saved threshold of each label; None where none were saved."""
        saved = self.options.get("thresholds")
        return None if saved is None else np.asarray(saved, float)

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the tokens of each text, not truncated."""
        return [tokens.ids for tokens in self.tokens(texts)]

    def tokens(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None, limit: int | None = None
    ) -> list[Tokens]:
        """Return the tokens of each text or pair.

        Args:
            texts: the texts, or the first ones of pairs.
            pairs: the second ones.
            limit: tokens that a pair is truncated to, the longer text first; None: whole.
        """
        if pairs is not None and self._joins_pairs:
            texts = [f"{first}\n{second}" for first, second in zip(texts, pairs, strict=True)]
            pairs = None
        encoded: Any = self.tokenizer(
            list(texts),
            None if pairs is None else list(pairs),
            truncation=False if limit is None else "longest_first",
            max_length=limit,
            verbose=False,
        )
        ids = cast("list[list[int]]", encoded["input_ids"])
        types = encoded.get("token_type_ids") if pairs is not None else None
        return [
            Tokens(one, None if types is None else types[index]) for index, one in enumerate(ids)
        ]

    def cut(self, ids: list[int], max_length: int) -> list[int]:
        """Return tokens truncated on the right to `max_length`, keeping the final special token."""
        if len(ids) <= max_length:
            return ids
        special = getattr(self.tokenizer, "sep_token_id", None)
        if special is not None and ids[-1] == special:
            return [*ids[: max_length - 1], special]
        return ids[:max_length]

    def fitted(self, tokens: Tokens, text: str, pair: str | None) -> Tokens:
        """Return tokens within `max_length`, a text truncated on the right, a pair evenly."""
        limit = self.spec.max_length
        if len(tokens.ids) <= limit:
            return tokens
        if pair is None or self._joins_pairs:
            return Tokens(self.cut(tokens.ids, limit))
        return self.tokens([text], [pair], limit)[0]

    def encode_all(self, samples: Iterable[Sample], progress: Progress | None = None) -> EncodedSet:
        """Encode samples; texts that are too long are handled as `data.too_long` says.

        Raises:
            DataError: a label is not a class, or a text is too long and `data.too_long` is `error`.
        """
        counts = Counts()
        kept: list[EncodedSample] = []
        sources: list[Sample] = []
        unknown: list[Sample] = []
        listed = list(samples)
        for start in range(0, len(listed), BATCH):
            batch = listed[start : start + BATCH]
            for sample, tokens in zip(batch, self._of_samples(batch), strict=True):
                label = self._label(sample)
                if label is None:
                    unknown.append(sample)
                    continue
                fitted = self._kept(tokens, sample, counts)
                if fitted is None:
                    continue
                kept.append(encoded_text(fitted, sample.origin, label))
                sources.append(sample)
                counts.add([len(fitted.ids)], 1, None)
            if progress is not None:
                progress.advance(len(batch))
        if unknown:
            raise DataError(self._unknown(unknown, listed))
        if not kept:
            raise DataError("every sample was dropped: all are longer than data.max_length")
        return EncodedSet(kept, sources, counts.stats())

    def _of_samples(self, samples: Sequence[Sample]) -> list[Tokens]:
        texts = [sample.text or "" for sample in samples]
        if samples[0].pair is None:
            return self.tokens(texts)
        return self.tokens(texts, [sample.pair or "" for sample in samples])

    def _label(self, sample: Sample) -> int | float | tuple[int, ...] | None:
        """Return the label as the objective takes it; None if it is unknown."""
        if self.kind == "number":
            return number(str(sample.label))
        if self.kind == "class":
            return None if isinstance(sample.label, tuple) else self._index.get(str(sample.label))
        names = labels_of(sample)
        if any(name not in self._index for name in names):
            return None
        return tuple(sorted(self._index[name] for name in names))

    def _unknown(self, unknown: Sequence[Sample], everything: Iterable[Sample]) -> str:
        rows = rows_named([sample.origin for sample in unknown])
        if self.kind == "number":
            return f"column {self.spec.label!r} must hold numbers, but it does not in {rows}"
        if self.kind == "class" and isinstance(unknown[0].label, tuple):
            return f"column {self.spec.label!r} holds lists of labels, not one class: {rows}"
        return unknown_labels(unknown, everything, self.labels)

    def _kept(self, tokens: Tokens, sample: Sample, counts: Counts) -> Tokens | None:
        """Return tokens within `max_length`; None for a dropped sample."""
        limit, length = self.spec.max_length, len(tokens.ids)
        if length <= limit:
            return tokens
        if self.spec.too_long == "error":
            raise DataError(
                f"{sample.origin}: {length:,} tokens, more than data.max_length ({limit:,}); "
                "raise it, or set data.too_long to drop or cut_prompt"
            )
        if length > FAR_TOO_LONG * limit:
            self.far_too_long.append(sample.origin)
        if self.spec.too_long == "cut_prompt":
            counts.cut.add(sample.origin)
            return self.fitted(tokens, sample.text or "", sample.pair)
        counts.dropped.setdefault(TOO_LONG, Tally()).add(sample.origin)
        return None


def encoded_text(
    tokens: Tokens, origin: str, label: int | float | tuple[int, ...] | None = None
) -> EncodedSample:
    """Return a sample of a text's tokens, none of which is predicted."""
    return EncodedSample(
        np.asarray(tokens.ids, dtype=np.int32),
        np.zeros(len(tokens.ids), dtype=np.bool_),
        origin,
        label=label,
        token_types=None if tokens.types is None else np.asarray(tokens.types, dtype=np.int8),
    )
