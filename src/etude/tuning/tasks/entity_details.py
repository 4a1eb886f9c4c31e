"""What the report shows of a tagger: scores by type, errors by kind, confused types, sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from etude.tuning.data.schema import Sample
from etude.tuning.metrics.entities import OUTCOMES, Entity, Match, matches, scores_by_type

WORST = 24
"""Sentences with errors that are kept."""
LONGEST = 120
"""Words of a sentence that are kept, about its first error."""
NONE = ""
"""Type of what is missing or spurious, in the confusions."""


def entity_details(
    sentences: Sequence[Sample],
    true: Sequence[Sequence[Entity]],
    predicted: Sequence[Sequence[Entity]],
) -> dict[str, Any]:
    """Return `entities`: plain data for `report/details/entities.py`.

    Args:
        sentences: the held-out sentences.
        true: their entities.
        predicted: those that the model found.
    """
    outcomes: Counter[tuple[str, str]] = Counter()
    confusions: Counter[tuple[str, str]] = Counter()
    wrong: list[tuple[int, int, list[Match]]] = []
    for number, (wanted, found) in enumerate(zip(true, predicted, strict=True)):
        pairs = matches(wanted, found)
        for outcome, a, b in pairs:
            named = a or b
            assert named is not None
            outcomes[named.type, outcome] += 1
            confusions[a.type if a else NONE, b.type if b else NONE] += 1
        errors = sum(pair.outcome != "right" for pair in pairs)
        if errors:
            wrong.append((-errors, number, pairs))
    wrong.sort(key=lambda one: one[:2])
    scores = scores_by_type(true, predicted)
    types = list(scores)
    return {
        "entities": {
            "types": {
                name: {
                    "precision": score.precision,
                    "recall": score.recall,
                    "f1": score.f1,
                    "true": score.true,
                    "predicted": score.predicted,
                }
                for name, score in scores.items()
            },
            "outcomes": {
                name: {outcome: outcomes[name, outcome] for outcome in OUTCOMES} for name in types
            },
            "confusions": [[a, b, n] for (a, b), n in sorted(confusions.items())],
            "sentences_wrong": len(wrong),
            "sentences": len(sentences),
            "worst": [_sentence(sentences[number], pairs) for _, number, pairs in wrong[:WORST]],
        }
    }


def _sentence(sample: Sample, pairs: Sequence[Match]) -> dict[str, Any]:
    """Return a sentence with its entities, cut to a window about its first error if it is long."""
    first = min(
        entity.start
        for outcome, *both in pairs
        if outcome != "right"
        for entity in both
        if entity is not None
    )
    start = max(0, min(first - LONGEST // 4, len(sample.words) - LONGEST))
    end = min(len(sample.words), start + LONGEST)

    def shown(entity: Entity | None) -> list[Any] | None:
        if entity is None or entity.end <= start or entity.start >= end:
            return None
        return [entity.type, max(entity.start, start) - start, min(entity.end, end) - start]

    marks = [[outcome, shown(a), shown(b)] for outcome, a, b in pairs]
    return {
        "origin": sample.origin,
        "words": list(sample.words[start:end]),
        "cut": [start > 0, end < len(sample.words)],
        "marks": [mark for mark in marks if mark[1] or mark[2]],
    }
