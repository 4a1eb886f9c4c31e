"""BM25, and what is mined with it for queries."""

from __future__ import annotations

import math
from collections import Counter
from itertools import count, pairwise

import numpy as np
import pytest

from etude.core.errors import DataError
from etude.tuning.data.bm25 import BM25
from etude.tuning.data.candidates import bm25_ranker, held_out_queries, training_queries
from etude.tuning.data.schema import Sample
from etude.tuning.metrics.rouge import split_words

DOCUMENTS = [
    "aspirin helps against pain and fever",
    "pain pain pain in the knee",
    "the weather in Oslo is cold",
    "a knee may hurt in cold weather",
    "",
]


NUMBERS = count(1)


def row(query, document=None, negative=None, label=None):
    number = next(NUMBERS)
    return Sample((), query, f"rows:{number}", positive=document, negative=negative, label=label)


@pytest.mark.parametrize("query", ["knee pain", "cold cold Oslo", "nothing shared", "Knees"])
def test_scores_are_those_of_the_formula(query):
    words = [[word.key for word in split_words(text)] for text in DOCUMENTS]
    mean = sum(map(len, words)) / len(words)
    expected: list[float] = []
    for own in words:
        counts, score = Counter(own), 0.0
        for word in (one.key for one in split_words(query)):
            having = sum(word in other for other in words)
            idf = math.log(1 + (len(words) - having + 0.5) / (having + 0.5))
            length = 1.2 * (1 - 0.75 + 0.75 * len(own) / mean)
            score += idf * counts[word] * 2.2 / (counts[word] + length) if having else 0.0
        expected.append(score)
    index = BM25(DOCUMENTS)
    np.testing.assert_allclose(index.scores(query), expected, rtol=1e-12)
    order = index.order(query)
    found = [place for place, score in enumerate(expected) if score > 0]
    assert sorted(order) == found
    assert all(expected[a] >= expected[b] for a, b in pairwise(order))


def cities():
    """Rows whose documents all share a word with every query; three answer one query."""
    return [row(f"what is city {n}", f"city number {n}") for n in range(40)] + [
        row("what is city 7", "city number seven"),
        row("what is city 7", "city number vii"),
    ]


def test_negatives_are_training_documents_that_do_not_belong_with_the_query():
    samples = cities()
    mined = training_queries(samples, bm25_ranker, 6, 4, seed=3)
    documents = {sample.positive for sample in samples}
    assert mined.documents == len(documents) and len(mined.queries) == len(samples)
    sevens = {"city number 7", "city number seven", "city number vii"}
    for query in mined.queries:
        others = set(query.others)
        assert len(query.others) == len(others) == 6 and others <= documents
        own = sevens if query.sample.text == "what is city 7" else {query.sample.positive}
        assert not others & own and query.relevant == (query.sample.positive,)
    assert (mined.hard, mined.random, mined.given) == (4 * 42, 2 * 42, 0)
    again = training_queries(samples, bm25_ranker, 6, 4, seed=3)
    assert again == mined
    other = training_queries(samples, bm25_ranker, 6, 4, seed=4)
    assert [q.others for q in other.queries] != [q.others for q in mined.queries]


def test_hard_negatives_are_those_that_the_first_stage_ranks_high():
    far = [row(f"unlike {n}", f"unlike in every word {n}") for n in range(100)]
    near = [row("what is a knee", "a knee"), row("is it cold", "what is a cold knee")]
    mined = training_queries([*near, *far], bm25_ranker, 1, 1, seed=0)
    assert mined.queries[0].others == ("what is a cold knee",)
    # Of the second query, the first stage finds nothing but its own document.
    assert (mined.hard, mined.random) == (101, 1)
    random = training_queries([*near, *far], bm25_ranker, 1, 0, seed=0)
    assert random.hard == 0 and random.random == 102


def test_a_negative_of_the_row_comes_first_and_few_documents_give_few():
    samples = [row("a", "one", negative="bad"), row("b", "two"), row("b", "three", negative="two")]
    mined = training_queries(samples, bm25_ranker, 4, 2, seed=0)
    assert mined.queries[0].others[0] == "bad" and mined.given == 1
    assert [set(q.others) for q in mined.queries] == [
        {"bad", "two", "three"},
        {"one", "bad"},  # its own other document is no negative, though a row says so
        {"one", "bad"},
    ]
    with pytest.raises(DataError, match="no training query has a document that does not belong"):
        training_queries([row("a", "one"), row("a", "two")], bm25_ranker, 2, 1, seed=0)


def test_texts_of_one_class_are_no_negatives_of_each_other():
    samples = [row(f"text {n} of a class", label=f"c{n % 3}") for n in range(30)]
    samples.append(row("alone", label="rare"))
    label = {sample.text: sample.label for sample in samples}
    mined = training_queries(samples, bm25_ranker, 5, 3, seed=0)
    assert mined.alone == (samples[-1].origin,) and len(mined.queries) == 30
    for query in mined.queries:
        assert query.relevant[0] != query.sample.text
        assert label[query.relevant[0]] == query.sample.label
        assert all(label[other] != query.sample.label for other in query.others)
    held_out = held_out_queries(samples, bm25_ranker, 12)
    for query in held_out.queries:
        assert query.sample.text not in (*query.relevant, *query.others)
        assert len(query.ranks) == 9  # all others of its class
        assert all(label[one] == query.sample.label for one in query.relevant)


def test_candidates_are_what_the_first_stage_finds_among_held_out_documents():
    order = {
        "q1": ["d3", "d1", "d2"],  # d1 and d2 belong with it, d4 was missed
        "q2": ["d1", "d2", "d3"],  # d4 was missed
        "q3": ["d3"],
    }
    samples = [row("q1", f"d{n}") for n in (1, 2, 4)] + [row("q2", "d4"), row("q3", "d3")]

    def rank(documents, queries):
        return [np.array([documents.index(d) for d in order[query]]) for query in queries]

    one, two, three = held_out_queries(samples, rank, 3).queries
    assert (one.relevant, one.others, one.ranks) == (("d1", "d2"), ("d3",), (2, 3, 0))
    assert (two.relevant, two.others, two.ranks) == (("d4",), ("d1", "d2", "d3"), (0,))
    assert (three.relevant, three.others, three.ranks) == (("d3",), (), (1,))
    assert held_out_queries(samples, rank, 2).queries[0].ranks == (2, 0, 0)
