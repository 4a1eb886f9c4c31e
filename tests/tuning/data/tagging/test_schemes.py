"""Schemes are recognised, converted without loss, and decoded to valid sequences only."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.core.errors import DataError
from etude.tuning.data.tagging.decoding import TagDecoder
from etude.tuning.data.tagging.schemes import SchemeEvidence, entities, is_broken, labels_of, write
from etude.tuning.data.tagging.words import split_words, splitting_of
from etude.tuning.metrics.entities import Entity

# "in New York , Angela Merkel said", then two neighbours of one type
EXAMPLES = {
    "IO": "O LOC LOC O PER PER O",
    "IOB1": "O I-LOC I-LOC O I-PER I-PER O I-LOC B-LOC",
    "BIO": "O B-LOC I-LOC O B-PER I-PER O B-LOC B-LOC",
    "BIOES": "O B-LOC E-LOC O B-PER E-PER O S-LOC S-LOC",
    "BILOU": "O B-LOC L-LOC O B-PER L-PER O U-LOC U-LOC",
}


def found_scheme(*sequences):
    evidence = SchemeEvidence()
    for number, tags in enumerate(sequences, start=1):
        evidence.add(tags, f"rows:{number}")
    return evidence.scheme()


@pytest.mark.parametrize("scheme", EXAMPLES)
def test_a_scheme_is_recognised_and_read(scheme):
    tags = EXAMPLES[scheme].split()
    assert found_scheme(tags) == scheme
    expected = [Entity("LOC", 1, 3), Entity("PER", 4, 6)]
    if scheme != "IO":
        expected += [Entity("LOC", 7, 8), Entity("LOC", 8, 9)]
    assert entities(tags, scheme) == expected
    assert not is_broken(tags, scheme)
    assert write(expected, len(tags), scheme) == tags


@st.composite
def entity_lists(draw):
    ends = sorted(draw(st.lists(st.integers(0, 12), min_size=2, max_size=8, unique=True)))
    spans = [(a, b) for a, b in itertools.pairwise(ends) if draw(st.booleans())]
    return [Entity(draw(st.sampled_from(("A", "B-x", "O"))), a, b) for a, b in spans]


@given(entity_lists(), st.sampled_from(["IOB1", "BIO", "BIOES", "BILOU"]))
def test_what_is_written_is_read_again(found, scheme):
    tags = write(found, 12, scheme)
    assert entities(tags, scheme) == found
    assert not is_broken(tags, scheme)


def test_sequences_that_break_their_scheme_are_told_and_read_as_conlleval_does():
    assert is_broken(["O", "I-PER"], "BIO")
    assert is_broken(["B-PER", "I-LOC"], "BIO")
    assert is_broken(["B-PER", "O"], "BIOES")
    assert entities(["O", "I-PER", "I-LOC"], "BIO") == [Entity("PER", 1, 2), Entity("LOC", 2, 3)]
    # one slip among many that keep to BIO does not make it IOB1
    assert found_scheme(["B-A", "I-A"], ["B-A", "O"], ["O", "I-A"]) == "BIO"


def test_tags_of_two_kinds_are_refused_with_their_rows():
    with pytest.raises(DataError, match=r"mixed with tags without one: 'PER' in 1 \(rows:2\)"):
        found_scheme(["B-PER"], ["PER"])


def log_probs(draw: np.random.Generator, length: int, classes: int):
    values = draw.normal(size=(length, classes)) * 2
    return values - np.log(np.exp(values).sum(axis=1, keepdims=True))


def valid(labels, tags, scheme):
    named = [labels[tag] for tag in tags]
    return not is_broken(named, scheme)


@pytest.mark.parametrize("scheme", ["BIO", "BIOES"])
def test_the_decoded_sequence_and_the_probabilities_are_those_of_all_valid_sequences(scheme):
    """Against every sequence, one by one, in float64."""
    labels = labels_of(("A", "B"), scheme)
    decoder = TagDecoder(labels)
    draw = np.random.default_rng(3)
    repaired = 0
    for length in (1, 2, 3, 4) * 6:
        scores = log_probs(draw, length, len(labels))
        every = [
            (sum(scores[i, tag] for i, tag in enumerate(tags)), tags)
            for tags in itertools.product(range(len(labels)), repeat=length)
            if valid(labels, tags, scheme)
        ]
        _, expected = max(every)
        tags = decoder.tags(scores)
        repaired += tags != list(scores.argmax(axis=1))
        assert tuple(tags) == expected
        total = sum(math.exp(value) for value, _ in every)
        found = decoder.entities(tags)
        for entity, probability in zip(
            found, decoder.probabilities(scores, tags, found), strict=True
        ):
            share = sum(
                math.exp(value) for value, tags in every if entity in decoder.entities(tags)
            )
            assert probability == pytest.approx(share / total, abs=1e-12)
    assert repaired > 0


def test_without_constraints_each_word_has_its_most_probable_tag():
    labels = labels_of(("A",), "BIO")
    scores = np.log(np.array([[0.6, 0.1, 0.3], [0.2, 0.3, 0.5]]))
    free = TagDecoder(labels, constrained=False)
    assert free.tags(scores) == [0, 2]
    assert free.entities([0, 2]) == [Entity("A", 1, 2)]
    assert free.probabilities(scores, [0, 2], free.entities([0, 2])) == pytest.approx([0.5])
    assert TagDecoder(labels).tags(scores) == [0, 1]


@pytest.mark.parametrize(
    ("text", "splitting", "words"),
    [
        ("Parkinson's disease, 1.5 mg", "punctuation", "Parkinson ' s disease , 1 . 5 mg"),
        ("नमस्ते, दुनिया!", "punctuation", "नमस्ते , दुनिया !"),
        ("東京へ", "punctuation", "東 京 へ"),
        ('He said: "I\'m in the U.S. ..."', "edges", 'He said : " I \'m in the U.S. ... "'),
        ("@etude costs $5, don't.", "edges", "@etude costs $5 , do n't ."),
        (" a, b ", "whitespace", "a, b"),
        ("", "punctuation", ""),
    ],
)
def test_texts_are_split(text, splitting, words):
    spans = split_words(text, splitting)
    assert [text[a:b] for a, b in spans] == words.split()


def test_the_splitting_is_that_of_the_training_words():
    assert splitting_of(["Parkinson", "'", "s", "disease", "."] * 9) == "punctuation"
    assert splitting_of(["the", "U.S.", "of", "A", ".", "@you"] * 9) == "edges"
    assert splitting_of(["Berlin,", "said", "Merkel."] * 9) == "whitespace"
    assert splitting_of([]) == "punctuation"
