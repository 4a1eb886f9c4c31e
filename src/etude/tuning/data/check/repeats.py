"""Checks for duplicates and for overlap of training and evaluation data."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from etude.tuning.data.check.findings import Entry, Finding, excerpt, found
from etude.tuning.data.duplicates import NearDuplicates

_WIDTH = 5
"""Words a shingle: fewer would call templated questions near copies of each other."""

_SHORTEST = 12
"""Words that a text must have to be compared by its shingles."""

FIX_DUPLICATE = "drops all but the first"
FIX_OVERLAP = "drops them from the training data"


def normal(text: str) -> str:
    """Return a text without what makes no difference: case and white space."""
    return re.sub(r"\s+", " ", text).strip().lower()


def _key(text: str) -> bytes:
    return hashlib.blake2b(normal(text).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def whole(entry: Entry) -> str:
    """Return all of an entry as one text, roles included."""
    sample = entry.sample
    if sample.label is not None:
        return "\n".join([*entry.texts, *entry.answers])
    if sample.text is not None:
        return sample.text
    turns = [f"{turn.role}: {turn.content}" for turn in sample.messages]
    turns += [f"worse: {turn.content}" for turn in sample.rejected[-1:]]
    return "\n".join([*turns, "" if sample.desirable is None else str(sample.desirable)])


class Repeats:
    """Duplicates within training data, contradictions, and overlap with the evaluation."""

    def __init__(self) -> None:
        self._train: dict[bytes, str] = {}
        self._eval: dict[bytes, str] = {}
        self._eval_prompts: dict[bytes, str] = {}
        self._answers: dict[bytes, tuple[bytes, str]] = {}
        self._near_train, self._near_eval = _Near(), _Near()
        self.exact = Finding(
            "duplicates",
            "warning",
            "duplicate rows",
            "they are trained, and counted, several times",
            fix=FIX_DUPLICATE,
        )
        self.near = Finding(
            "near-duplicates",
            "note",
            "near-duplicates: rows that differ from an earlier one in a few words",
            "they are overweighted; drop all but one if they are copies",
        )
        self.overlap = Finding(
            "overlap",
            "error",
            "training rows that are in the evaluation data too",
            "the evaluation would reward memorisation",
            fix=FIX_OVERLAP,
        )
        self.prompts = Finding(
            "overlap-prompt",
            "warning",
            "training rows with a prompt of the evaluation data",
            "a different answer to the same question still leaks it",
        )
        self.near_overlap = Finding(
            "overlap-near",
            "warning",
            "training rows that differ from one of the evaluation in a few words",
            "the evaluation would reward memorisation; split the data by source",
        )
        self.contradictions = Finding(
            "contradictions",
            "note",
            "rows that contradict an earlier answer to the same prompt",
            "the model learns a mixture; keep the right one, or make the prompts differ",
        )

    def see(self, entry: Entry) -> None:
        """Compare with all that came before."""
        text, origin = whole(entry), entry.origin
        key = _key(text)
        prompt = _key(entry.prompt) if entry.prompt.strip() else None
        if entry.side == "eval":
            self._eval.setdefault(key, origin)
            if prompt is not None:
                self._eval_prompts.setdefault(prompt, origin)
            self._near_eval.add(text, origin)
            return
        if key in self._eval:
            self.overlap.add(origin, f"{origin} is {self._eval[key]}")
        elif prompt is not None and prompt in self._eval_prompts:
            self.prompts.add(origin, f"{origin} asks as {self._eval_prompts[prompt]} does")
        elif other := self._near_eval.match(text):
            self.near_overlap.add(origin, f"{origin} is near {other}")
        if key in self._train:
            self.exact.add(origin, f"{origin} repeats {self._train[key]}")
            return
        self._train[key] = origin
        if other := self._near_train.match_or_add(text, origin):
            self.near.add(origin, f"{origin} is near {other}")
        if prompt is not None and not entry.sample.rejected and entry.sample.desirable is None:
            answer = _key(entry.answers[-1]) if entry.answers else b""
            first, place = self._answers.setdefault(prompt, (answer, origin))
            if first != answer:
                told = f"{origin} and {place}: {excerpt(entry.prompt)}"
                self.contradictions.add(origin, told)

    def findings(self) -> Iterable[Finding]:
        """Return what stands twice."""
        return found(
            self.overlap,
            self.prompts,
            self.near_overlap,
            self.exact,
            self.near,
            self.contradictions,
        )


class _Near:
    """Near-duplicates among texts long enough to have any."""

    def __init__(self) -> None:
        self._seen = NearDuplicates(_WIDTH)
        self._origins: list[str] = []

    def match(self, text: str) -> str | None:
        if len(text.split()) < _SHORTEST:
            return None
        place = self._seen.nearest(text)
        return None if place is None else self._origins[place]

    def add(self, text: str, origin: str) -> None:
        if len(text.split()) >= _SHORTEST:
            self._seen.add(text)
            self._origins.append(origin)

    def match_or_add(self, text: str, origin: str) -> str | None:
        """Return the earlier near one; only texts that have none are remembered."""
        other = self.match(text)
        if other is None:
            self.add(text, origin)
        return other
