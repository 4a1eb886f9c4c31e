"""Entity scores are seqeval's, strict and lenient; errors are sorted so that each counts once."""

from __future__ import annotations

import random
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval import metrics as seqeval
from seqeval.scheme import IOB2, IOBES

from etude.tuning.data.tagging.schemes import entities, write
from etude.tuning.metrics.entities import (
    OUTCOMES,
    Entity,
    entity_score,
    matches,
    scores_by_type,
)

TYPES = ("PER", "LOC", "ORG")
SCHEMES = {"BIO": IOB2, "BIOES": IOBES}


def random_tags(draw: random.Random, letters: str) -> list[str]:
    """Tags without any order: most sequences break every scheme."""
    tags = ["O", *(f"{letter}-{name}" for letter in letters for name in TYPES)]
    return [draw.choice(tags) for _ in range(draw.randint(1, 12))]


def valid_tags(draw: random.Random, scheme) -> list[str]:
    length = draw.randint(1, 14)
    found, place = [], 0
    while place < length:
        size = draw.randint(1, 3)
        if draw.random() < 0.5 and place + size <= length:
            found.append(Entity(draw.choice(TYPES), place, place + size))
        place += size
    return write(found, length, scheme)


def compared(true, predicted, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # seqeval warns where a type was never predicted
        return seqeval.classification_report(
            true, predicted, output_dict=True, zero_division=0, **options
        )


@pytest.mark.parametrize("letters", ["BI", "BIES"])
def test_any_tags_score_as_in_seqeval(letters):
    draw = random.Random(7)
    for _ in range(150):
        true = [random_tags(draw, letters) for _ in range(20)]
        predicted = [
            [*map(draw.choice, zip(t, random_tags_of(draw, t, letters), strict=True))] for t in true
        ]
        found = [[entities(tags) for tags in side] for side in (true, predicted)]
        score, expected = entity_score(*found), compared(true, predicted)
        micro = expected["micro avg"]
        assert score.precision == pytest.approx(micro["precision"], abs=1e-12)
        assert score.recall == pytest.approx(micro["recall"], abs=1e-12)
        assert score.f1 == pytest.approx(micro["f1-score"], abs=1e-12)
        for name, one in scores_by_type(*found).items():
            assert one.f1 == pytest.approx(expected[name]["f1-score"], abs=1e-12)
            assert one.true == expected[name]["support"]


def random_tags_of(draw, tags, letters):
    made: list[str] = []
    while len(made) < len(tags):
        made += random_tags(draw, letters)
    return made[: len(tags)]


@pytest.mark.parametrize("scheme", ["BIO", "BIOES"])
def test_valid_tags_score_as_in_strict_seqeval(scheme):
    draw = random.Random(11)
    for _ in range(150):
        true = [valid_tags(draw, scheme) for _ in range(20)]
        predicted = [tags if draw.random() < 0.4 else shuffled(draw, tags, scheme) for tags in true]
        found = [[entities(tags) for tags in side] for side in (true, predicted)]
        expected = compared(true, predicted, mode="strict", scheme=SCHEMES[scheme])
        assert entity_score(*found).f1 == pytest.approx(
            expected["micro avg"]["f1-score"], abs=1e-12
        )


def shuffled(draw, tags, scheme):
    other = entities(tags)
    moved = [
        Entity(draw.choice(TYPES), e.start, max(e.start + 1, e.end - draw.randint(0, 1)))
        for e in other
        if draw.random() < 0.8
    ]
    return write(moved, len(tags), scheme)


def test_without_entities_the_score_is_zero_as_in_seqeval():
    assert entity_score([[]], [[]]).f1 == 0.0
    assert compared([["O"]], [["O"]]) is not None


@st.composite
def entity_lists(draw):
    places = sorted(draw(st.sets(st.integers(0, 12), max_size=8)))
    pairs = zip(places[::2], places[1::2], strict=False)
    return [Entity(draw(st.sampled_from(TYPES)), a, b) for a, b in pairs]


@given(entity_lists(), entity_lists())
def test_each_entity_has_one_outcome(true, predicted):
    pairs = matches(true, predicted)
    assert sorted(p.true for p in pairs if p.true) == sorted(true)
    assert sorted(p.predicted for p in pairs if p.predicted) == sorted(predicted)
    assert {p.outcome for p in pairs} <= set(OUTCOMES)
    assert sum(p.outcome == "right" for p in pairs) == len(set(true) & set(predicted))


def test_errors_are_told_apart():
    true = [Entity("PER", 0, 2), Entity("LOC", 3, 4), Entity("ORG", 5, 8), Entity("LOC", 9, 10)]
    predicted = [
        Entity("PER", 0, 1),
        Entity("ORG", 3, 4),
        Entity("PER", 6, 9),
        Entity("PER", 11, 12),
    ]
    named = {(p.outcome, (p.true or p.predicted).start) for p in matches(true, predicted)}
    assert named == {
        ("boundary", 0),
        ("type", 3),
        ("both", 5),
        ("missing", 9),
        ("spurious", 11),
    }
