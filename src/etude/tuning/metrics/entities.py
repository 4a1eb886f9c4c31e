"""Entity F1: exact boundaries and type, and a sorting of errors.

An entity counts as right if its type, its first and its last word are those of a true one
(CoNLL-2003; Tjong Kim Sang and De Meulder 2003). Precision, recall and F1 are over the entities of
all sentences together (micro-averaged) and equal those of `seqeval`. Words are never scored: most
are outside of any entity, so word accuracy is high for a model that finds nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

Outcome = Literal["right", "type", "boundary", "both", "missing", "spurious"]
"""What became of an entity: found exactly; with another type; with the type but other boundaries;
with both wrong; not found; or predicted where there is none."""

OUTCOMES: tuple[Outcome, ...] = ("right", "type", "boundary", "both", "missing", "spurious")


OUTSIDE = "O"
"""Tag of a word outside of entities."""
PREFIXED = re.compile(r"([BIESLUM])-(.+)")
"""Tag of a word inside: a letter and the type."""


def is_tag(text: str) -> bool:
    """Return whether a text is O, or a prefix and a type."""
    return text == OUTSIDE or PREFIXED.fullmatch(text) is not None


class Entity(NamedTuple):
    """An entity of a sentence."""

    type: str
    start: int
    """Its first word, from 0."""
    end: int
    """The word after its last."""


@dataclass(frozen=True)
class EntityScore:
    """Counts of entities, and the shares made of them."""

    right: int
    true: int
    predicted: int

    @property
    def precision(self) -> float:
        """Return the share of the predicted entities that are right; 0 if there are none."""
        return self.right / self.predicted if self.predicted else 0.0

    @property
    def recall(self) -> float:
        """Return the share of the true entities that were found; 0 if there are none."""
        return self.right / self.true if self.true else 0.0

    @property
    def f1(self) -> float:
        """Return the harmonic mean of precision and recall, 0 to 1."""
        total = self.true + self.predicted
        return 2 * self.right / total if total else 0.0


def entity_score(
    true: Iterable[Sequence[Entity]], predicted: Iterable[Sequence[Entity]]
) -> EntityScore:
    """Return the score over all sentences.

    Args:
        true: the entities of each sentence.
        predicted: those that were predicted, of the same sentences.
    """
    right = all_true = all_predicted = 0
    for wanted, found in zip(true, predicted, strict=True):
        right += len(set(wanted) & set(found))
        all_true += len(set(wanted))
        all_predicted += len(set(found))
    return EntityScore(right, all_true, all_predicted)


def scores_by_type(
    true: Iterable[Sequence[Entity]], predicted: Iterable[Sequence[Entity]]
) -> dict[str, EntityScore]:
    """Return the score of each type that was true or predicted, in alphabetical order."""
    right: Counter[str] = Counter()
    counts_true: Counter[str] = Counter()
    counts_predicted: Counter[str] = Counter()
    for wanted, found in zip(true, predicted, strict=True):
        right.update(entity.type for entity in set(wanted) & set(found))
        counts_true.update(entity.type for entity in set(wanted))
        counts_predicted.update(entity.type for entity in set(found))
    return {
        name: EntityScore(right[name], counts_true[name], counts_predicted[name])
        for name in sorted({*counts_true, *counts_predicted})
    }


class Match(NamedTuple):
    """A true entity and the predicted one that stands for it."""

    outcome: Outcome
    true: Entity | None
    """None for a spurious one."""
    predicted: Entity | None
    """None for a missing one."""


def matches(true: Sequence[Entity], predicted: Sequence[Entity]) -> list[Match]:
    """Pair the entities of one sentence, each with at most one other, and say what is wrong.

    Exact pairs first, then those with the same words, then overlapping ones of the same type, then
    other overlapping ones; of several, the pair that shares the most words. What is left is missing
    or spurious, so every entity is counted once.
    """
    wanted, found = dict.fromkeys(true), dict.fromkeys(predicted)
    pairs: list[Match] = []

    def take(outcome: Outcome, a: Entity, b: Entity) -> None:
        del wanted[a], found[b]
        pairs.append(Match(outcome, a, b))

    for entity in [entity for entity in wanted if entity in found]:
        take("right", entity, entity)
    overlaps = [
        (_rank(a, b), -shared, a, b)
        for a in wanted
        for b in found
        if (shared := min(a.end, b.end) - max(a.start, b.start)) > 0
    ]
    named: dict[int, Outcome] = {0: "type", 1: "boundary", 2: "both"}
    for rank, _, a, b in sorted(overlaps, key=lambda overlap: (*overlap[:2], overlap[2].start)):
        if a in wanted and b in found:
            take(named[rank], a, b)
    pairs += [Match("missing", entity, None) for entity in wanted]
    pairs += [Match("spurious", None, entity) for entity in found]
    return pairs


def _rank(a: Entity, b: Entity) -> int:
    if (a.start, a.end) == (b.start, b.end):
        return 0
    return 1 if a.type == b.type else 2
