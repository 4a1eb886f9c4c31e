"""Marked words and coloured tokens: texts of anybody, shown to everybody."""

from __future__ import annotations

import re
from html import unescape

from hypothesis import given
from hypothesis import strategies as st
from markupsafe import escape
from rouge_score import rouge_scorer

from etude.core.words import porter_stem
from etude.tuning.report.shared_words import shared_words
from etude.tuning.report.spans import only_token_spans

words = st.lists(
    st.sampled_from(["return", "Returns", "the", "sum", "of", "a", "x1", "Value"]), max_size=12
)


@given(words, words)
def test_marked_words_are_those_that_rouge_l_counts(reference, answer):
    """Precision and recall of rouge-score, times the lengths, is the number of words marked."""
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True)
    score = scorer.score(" ".join(reference), ", ".join(answer))["rougeL"]
    marked = [
        piece for piece, counts in shared_words(" ".join(reference), ", ".join(answer)) if counts
    ]
    assert len(marked) == round(score.recall * len(reference))
    assert len(marked) == round(score.precision * len(answer))
    remaining = iter(porter_stem(word.lower()) for word in reference)
    assert all(porter_stem(word.lower()) in remaining for word in marked), "not in order"


def test_words_of_other_scripts_are_marked():
    assert shared_words("模型学习", "模型不学习") == [
        ("模", True),
        ("型", True),
        ("不", False),
        ("学", True),
        ("习", True),
    ]
    assert shared_words("Die Größe", "große Größe!") == [
        ("große ", False),
        ("Größe", True),
        ("!", False),
    ]


@given(st.text(max_size=200), st.text(max_size=200))
def test_pieces_joined_are_the_answer(reference, answer):
    assert "".join(piece for piece, _ in shared_words(reference, answer)) == answer


@given(
    st.lists(st.tuples(st.sampled_from(["trained", "context", "dropped"]), st.text()), max_size=8)
)
def test_token_spans_pass_unchanged(pieces):
    html = "".join(f'<span class="{name}">{escape(text)}</span>' for name, text in pieces)
    passed = only_token_spans(html)
    found = re.findall(r'<span class="(\w+)">(.*?)</span>', str(passed), re.DOTALL)
    assert [(name, unescape(text)) for name, text in found] == pieces


@given(st.text(alphabet="<>/ abspncriptmgx=\"'&;#!-", max_size=120))
def test_no_other_tag_survives_whatever_the_text(html):
    passed = str(only_token_spans(html))
    rest = re.sub(r'<span class="(trained|context|dropped)">|</span>', "", passed)
    assert "<" not in rest
    assert passed.count("<span") == passed.count("</span>")


def test_hostile_markup_becomes_text_or_nothing():
    passed = only_token_spans(
        '<span class="trained" onclick="x()">a</span><script>y()</script>'
        '<span class="evil">b</span>'
        '<img src=x onerror="z()"><span class="context">c'
    )
    assert passed == ('<span class="trained">a</span>y()b<span class="context">c</span>')
