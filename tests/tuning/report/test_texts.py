"""Marked words and coloured tokens: texts of anybody, shown to everybody."""

from __future__ import annotations

import re
from html import unescape

from hypothesis import given
from hypothesis import strategies as st
from markupsafe import escape
from rouge_score import rouge_scorer

from etude.tuning.report.lcs import shared_words
from etude.tuning.report.spans import only_token_spans

words = st.lists(st.sampled_from(["return", "the", "sum", "of", "a", "x1", "Value"]), max_size=12)


@given(words, words)
def test_marked_words_are_those_that_rouge_l_counts(reference, answer):
    """Precision and recall of rouge-score, times the lengths, is the number of words marked."""
    score = rouge_scorer.RougeScorer(["rougeL"]).score(" ".join(reference), ", ".join(answer))
    marked = [
        piece for piece, counts in shared_words(" ".join(reference), ", ".join(answer)) if counts
    ]
    assert len(marked) == round(score["rougeL"].recall * len(reference))
    remaining = iter(word.lower() for word in reference)
    assert all(word.lower() in remaining for word in marked), "not in the reference's order"


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
