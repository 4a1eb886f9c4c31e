"""Checks of labelled texts: what a text classification would refuse, and what it would say.

The faults are those that `data/labels.py` refuses, found by the same functions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

from etude.tuning.config.sections.data import DataSpec
from etude.tuning.data.check.findings import Entry, Finding, found
from etude.tuning.data.labelled import held_out_places, is_empty
from etude.tuning.data.labels import LabelError, LabelKind, label_kind, require_learnable
from etude.tuning.data.schema import DataSplit, Sample

LABELLED = "text-classification"
"""The task whose rows are labelled texts."""

IMAGES = "image-classification"
"""The task whose rows are labelled images."""

_TITLES = {
    "mixed-labels": "labels of several kinds",
    "one-class": "training rows that all have one label",
    "same-texts": "training rows that all have one text",
    "identifiers": "a label column of identifiers or texts",
    "unseen-labels": "evaluation rows with labels that are not in the training data",
}


class Classes:
    """Labels that cannot be learnt, empty texts, classes of one row."""

    def __init__(self, spec: DataSpec) -> None:
        self._spec = spec
        self._sides: dict[str, list[Sample]] = {"train": [], "eval": []}
        self._empty = Finding(
            "empty-texts", "error", "empty texts", "a run would refuse them; remove the rows"
        )

    def see(self, entry: Entry) -> None:
        """Take in the sample."""
        self._sides[entry.side].append(entry.sample)
        if is_empty(entry.sample):
            self._empty.add(entry.origin, entry.origin)

    def findings(self) -> Iterable[Finding]:
        """Return what a run would refuse, and classes of one row."""
        yield from found(self._empty)
        split = DataSplit(self._sides["train"], self._sides["eval"])
        if not split.train:
            return
        try:
            kind = label_kind(self._spec, [*split.train, *split.eval])
            require_learnable(split, self._spec, kind)
        except LabelError as error:
            yield Finding(
                error.check,
                "error",
                _TITLES[error.check],
                "a run would refuse the data",
                rows=error.rows,
                examples=[str(error)],
            )
            return
        if kind == "class":
            yield from found(_single_rows(split.train))


class LabelledTokens:
    """Texts over `data.max_length`, counted as the run counts them."""

    def __init__(self, tokenizer: Any, spec: DataSpec) -> None:
        self._count = _counter(tokenizer)
        self._limit = spec.max_length
        done = {
            "drop": "they are dropped; raise data.max_length, or set data.too_long: cut_prompt",
            "cut_prompt": "they are truncated on the right; raise data.max_length",
            "error": "the run would stop at the first; raise data.max_length",
        }[spec.too_long]
        self._long = Finding(
            "too-long",
            "error" if spec.too_long == "error" else "warning",
            f"texts of more than {spec.max_length:,} tokens",
            done,
        )

    def see(self, entry: Entry) -> None:
        """Count the tokens."""
        length = self._count(entry.sample)
        if length > self._limit:
            self._long.add(entry.origin, f"{entry.origin}: {length:,} tokens")

    def findings(self) -> Iterable[Finding]:
        """Return the texts that are too long."""
        return found(self._long)


def held_out_labelled(samples: Sequence[Sample], spec: DataSpec, seed: int) -> set[int]:
    """Return the places of the samples that a run would hold out, whatever is wrong with them."""
    kind: LabelKind = "class"
    with suppress(LabelError):  # reported by `Classes`
        kind = label_kind(spec, samples)
    return held_out_places(samples, kind, spec.eval_fraction, seed)


def _counter(tokenizer: Any) -> Callable[[Sample], int]:
    def count(sample: Sample) -> int:
        encoded = tokenizer(sample.text or "", sample.pair, truncation=False, verbose=False)
        return len(encoded["input_ids"])

    return count


def _single_rows(train: Sequence[Sample]) -> Finding:
    rows: defaultdict[str, list[str]] = defaultdict(list)
    for sample in train:
        rows[str(sample.label)].append(sample.origin)
    finding = Finding(
        "single-rows",
        "warning",
        "classes of one row",
        "one example teaches little, and none is left to evaluate; add rows, or merge classes",
    )
    for label, origins in rows.items():
        if len(origins) == 1:
            finding.add(origins[0], f"{origins[0]}: {label!r}")
    return finding
