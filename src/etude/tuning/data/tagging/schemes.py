"""Schemes of tags: recognised from the data, read as entities, written in another scheme.

    words    in  New    York  ,  Angela  Merkel  said
    IO       O   LOC    LOC   O  PER     PER     O     two neighbours of one type become one
    IOB1     O   I-LOC  I-LOC O  I-PER   I-PER   O     B- only where it follows one of its type
    BIO      O   B-LOC  I-LOC O  B-PER   I-PER   O     also called IOB2
    BIOES    O   B-LOC  E-LOC O  B-PER   E-PER   O     S- for an entity of one word
    BILOU    O   B-LOC  L-LOC O  B-PER   L-PER   O     the same with other letters

Tags are read as conlleval (Tjong Kim Sang and Buchholz 2000) and `seqeval` read them: an entity
begins at B- or S-, and at any other tag that continues no entity of its type. So a sequence that
breaks its scheme has entities too; `broken` tells such sequences.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from etude.core.errors import DataError
from etude.tuning.data.counts import Tally
from etude.tuning.metrics.entities import OUTSIDE, PREFIXED, Entity

SchemeName = Literal["IO", "IOB1", "BIO", "BIOES", "BILOU"]
TrainedScheme = Literal["BIO", "BIOES"]
"""A model is trained on one of these."""

_CANONICAL = {"L": "E", "U": "S", "M": "I"}
_LETTERS: dict[TrainedScheme, str] = {"BIO": "BI", "BIOES": "BIES"}


@lru_cache(maxsize=1 << 12)
def parse(tag: str, scheme: SchemeName = "BIO") -> tuple[str, str]:
    """Return a tag's letter (O, B, I, E or S) and the type of its entity.

    Raises:
        DataError: it is no tag of the scheme.
    """
    if tag == OUTSIDE:
        return OUTSIDE, ""
    if scheme == "IO":
        return "I", tag
    match = PREFIXED.fullmatch(tag)
    if match is None:
        raise DataError(f"{tag!r} is no tag: expected O, or B- or I- with a type, as in B-PER")
    return _CANONICAL.get(match[1], match[1]), match[2]


def entities(tags: Sequence[str], scheme: SchemeName = "BIO") -> list[Entity]:
    """Return the entities of a sentence, in order.

    Raises:
        DataError: a tag is none of the scheme.
    """
    found: list[Entity] = []
    start, before, kind = 0, OUTSIDE, ""
    for place, tag in enumerate([*tags, OUTSIDE]):
        letter, type_ = parse(tag, scheme)
        new = letter in "BS" or before in "OES" or type_ != kind
        if before != OUTSIDE and (letter == OUTSIDE or new):
            found.append(Entity(kind, start, place))
        if letter != OUTSIDE and new:
            start = place
        before, kind = letter, type_
    return found


def write(found: Iterable[Entity], length: int, scheme: SchemeName) -> list[str]:
    """Return the tags of a sentence of `length` words with these entities, none overlapping."""
    tags = [OUTSIDE] * length
    for entity in found:
        last = entity.end - 1
        for place in range(entity.start, entity.end):
            letter = "B" if place == entity.start else "I"
            if scheme in ("BIOES", "BILOU") and place == last:
                letter = "S" if place == entity.start else "E"
            if scheme == "BILOU":
                letter = {"S": "U", "E": "L"}.get(letter, letter)
            if scheme == "IOB1" and letter == "B":
                before = tags[place - 1] if place else OUTSIDE
                letter = "B" if before[2:] == entity.type else "I"
            tags[place] = entity.type if scheme == "IO" else f"{letter}-{entity.type}"
    return tags


def is_broken(tags: Sequence[str], scheme: SchemeName) -> bool:
    """Return whether a sequence breaks its scheme, as I- after O does in BIO."""
    canonical = [parse(tag, scheme) for tag in tags]
    again = write(entities(tags, scheme), len(tags), scheme)
    return canonical != [parse(tag, scheme) for tag in again]


@dataclass
class SchemeEvidence:
    """What the tags of a data set say about their scheme; sequences are added one by one."""

    letters: set[str] = field(default_factory=set[str])
    plain: dict[str, Tally] = field(default_factory=dict[str, Tally])
    """Tags without a prefix, and where they are."""
    begin_inside: int = 0
    """Entities that begin with I-."""
    begin_b: int = 0
    """Entities that begin with B- and follow none of their type."""

    def add(self, tags: Sequence[str], origin: str) -> None:
        """Take in the tags of one sentence."""
        before = ""
        for tag in tags:
            if tag == OUTSIDE:
                before = ""
                continue
            match = PREFIXED.fullmatch(tag)
            if match is None:
                self.plain.setdefault(tag, Tally()).add(origin)
                before = ""
                continue
            letter, kind = match[1], match[2]
            self.letters.add(letter)
            if kind != before:
                self.begin_inside += letter == "I"
                self.begin_b += letter == "B"
            before = kind

    def scheme(self) -> SchemeName:
        """Return the scheme that explains the sequences.

        BIO and IOB1 share their letters: in IOB1 an entity begins with I- unless it follows one of
        its type, in BIO never. The one that fewer entities break is taken.

        Raises:
            DataError: tags with and without a prefix are mixed.
        """
        if self.plain and not self.letters:
            return "IO"
        if self.plain:
            tag, rows = next(iter(self.plain.items()))
            raise DataError(
                f"tags with a prefix (B-, I-) are mixed with tags without one: {tag!r} in {rows}; "
                "write all of them in one scheme"
            )
        if self.letters & set("LU"):
            return "BILOU"
        if self.letters & set("ESM"):
            return "BIOES"
        return "IOB1" if self.begin_inside > self.begin_b else "BIO"


def labels_of(types: Iterable[str], scheme: TrainedScheme) -> tuple[str, ...]:
    """Return the outputs of a tagger: O, then every tag of each type, seen in training or not."""
    letters = _LETTERS[scheme]
    return (OUTSIDE, *(f"{letter}-{name}" for name in sorted(types) for letter in letters))


def scheme_of(labels: Sequence[str]) -> TrainedScheme:
    """Return the scheme of a tagger's outputs."""
    return "BIOES" if any(parse(label)[0] in "ES" for label in labels) else "BIO"


@dataclass(frozen=True)
class Transitions:
    """Which tags may follow each other in a valid sequence."""

    start: NDArray[np.bool_]
    """(C,) may begin a sentence."""
    allowed: NDArray[np.bool_]
    """(C, C) whether column may follow row."""
    end: NDArray[np.bool_]
    """(C,) may end a sentence."""


def transitions(labels: Sequence[str]) -> Transitions:
    """Return the valid transitions between a tagger's C outputs, BIO or BIOES."""
    parsed = [parse(label) for label in labels]
    closed = scheme_of(labels) == "BIOES"
    begins = np.array([letter in "OBS" for letter, _ in parsed])
    open_ = np.array([letter in "BI" for letter, _ in parsed])
    continues = np.array([[kind == other for _, other in parsed] for _, kind in parsed])
    continues &= open_[:, None] & ~begins[None, :]
    if not closed:
        return Transitions(begins, continues | begins[None, :], np.ones(len(parsed), dtype=bool))
    return Transitions(begins, continues | (~open_[:, None] & begins[None, :]), ~open_)
