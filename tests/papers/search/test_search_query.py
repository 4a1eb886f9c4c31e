"""What a query means, and what cannot be read, in one line."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.core.errors import EtudeError
from etude.papers.search.nodes import (
    And,
    Category,
    Days,
    Not,
    Or,
    PaperId,
    Phrase,
    Prefix,
    Word,
    described,
)
from etude.papers.search.query import DEEPEST, MOST_WORDS, QueryError, parse


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("object detection", And((Word("object"), Word("detection")))),
        ('"object detection"', Phrase("object detection")),
        ("“object detection”", Phrase("object detection")),
        ("diffus*", Prefix("diffus")),
        ("title:yolo", Word("yolo", "title")),
        ("ti:yolo abs:fast", And((Word("yolo", "title"), Word("fast", "abstract")))),
        ('title:"a b"', Phrase("a b", "title")),
        ("title:(a OR b)", Or((Word("a", "title"), Word("b", "title")))),
        ("author:LeCun", Word("LeCun", "author")),
        ("author:Y. LeCun", Phrase("Y LeCun", "author")),
        ("author:Y. A. LeCun yolo", And((Phrase("Y A LeCun", "author"), Word("yolo")))),
        ('au:"Yann LeCun"', Phrase("Yann LeCun", "author")),
        ("cat:cs.CV", Category("cs.cv")),
        ("cat:cs.*", Category("cs")),
        ("since:2026-04", Days(date(2026, 4, 1))),
        ("until:2026-04-15", Days(None, date(2026, 4, 15))),
        ("until:2026-02", Days(None, date(2026, 2, 28))),
        ("date:2024", Days(date(2024, 1, 1), date(2024, 12, 31))),
        ("2026-04..2026-05", Days(date(2026, 4, 1), date(2026, 5, 31))),
        ("2026-04..", Days(date(2026, 4, 1))),
        ("..20260415", Days(None, date(2026, 4, 15))),
        ("-survey", Not(Word("survey"))),
        ("NOT NOT survey", Word("survey")),
        ('yolo -"a survey"', And((Word("yolo"), Not(Phrase("a survey"))))),
        ("a OR b c", And((Or((Word("a"), Word("b"))), Word("c")))),
        ("a AND (b OR -c)", And((Word("a"), Or((Word("b"), Not(Word("c"))))))),
        ("this or that", And((Word("this"), Word("or"), Word("that")))),
        ("2604.01234", PaperId("2604.01234")),
        ("arXiv:2604.01234v2", PaperId("2604.01234")),
        ("https://arxiv.org/abs/2604.01234v2", PaperId("2604.01234")),
        ("math.CA/0611800", PaperId("math/0611800")),
        ("state-of-the-art", Word("state-of-the-art")),
        ("DINOv2: Learning", And((Word("DINOv2:"), Word("Learning")))),
        ("C++", Word("C++")),
        ("", And()),
        (" \t\n", And()),
        ("a & b", And((Word("a"), Word("b")))),
        ("a -", Word("a")),
    ],
)
def test_a_query_is_read_as_written(text, expected):
    assert parse(text).node == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('yolo "object detection', "quotation mark at character 6"),
        ("(a OR b", "parenthesis at character 1 is not closed"),
        ("a OR b)", "closing parenthesis at character 7"),
        (")", "closing parenthesis at character 1"),
        ("()", "no search term"),
        ("OR", "OR at character 1"),
        ("a OR", "OR at character 3"),
        ("a OR OR b", "OR at character 3"),
        ("AND a", "AND at character 1"),
        ("a AND OR b", "AND at character 3"),
        ("NOT", "NOT at character 1"),
        ("-(", "parenthesis"),
        ("- - -", "no search term"),
        ("???", "no search term"),
        ("title:", "nothing follows 'title:' at character 1"),
        ("autor:lecun", "did you mean 'author'"),
        ("cat:cs/CV", "not a category"),
        ("since:yesterday", "not a date"),
        ("since:2026-13", "not a date"),
        ("until:2026-02-30", "not a date"),
        ("since:0000", "not a date"),
        ("2026-05..2026-04", "ends before it begins"),
        ("id:abc", "not an id"),
        ("a*", "at least two letters"),
        ("xy-a*", "at least two letters"),
        ("(" * 3000, "nested more than"),
        ("(" * (DEEPEST + 1) + "a" + ")" * (DEEPEST + 1), "nested more than"),
        ("-" * 3999 + "(", "parenthesis"),
        ("yolo " * 10_000, "characters"),
        ("a " * (MOST_WORDS + 1), "words"),
        ("x" * 1_000_000, "characters"),
    ],
)
def test_what_cannot_be_read_is_told_in_one_line_with_its_place(text, said):
    with pytest.raises(QueryError, match=said) as caught:
        parse(text)
    assert isinstance(caught.value, EtudeError)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 200


def test_hidden_characters_are_left_out_and_that_is_said():
    parsed = parse("yo\u200blo\x00 \u202edetection\u202c")
    assert parsed.node == And((Word("yolo"), Word("detection")))
    assert parsed.notes == ("hidden characters ignored",)


@pytest.mark.parametrize("text", ["", "…", "yolo &"])
def test_a_lenient_reading_is_said(text):
    try:
        assert parse(text).notes
    except QueryError as error:
        assert "no search term" in str(error)


@given(
    st.text(
        st.sampled_from('ab "()-:*.|&ORANDNOT\0\u202e\ud800 title:cat:since:2026..éα'), max_size=60
    )
)
def test_any_text_is_read_or_refused_in_one_line(text):
    try:
        parsed = parse(text)
    except QueryError as error:
        assert "\n" not in str(error)
    else:
        assert described(parsed.node)


@given(st.text(max_size=200))
def test_any_unicode_is_read_or_refused_in_one_line(text):
    try:
        assert described(parse(text).node).splitlines() != []
    except QueryError as error:
        assert len(str(error).splitlines()) == 1


@pytest.mark.parametrize(
    "text",
    [
        "object detection",
        'title:"object detection" -survey (a OR bc* OR "c d") cat:cs.CV 2026-04..2026-05',
        "author:(lecun OR bengio) since:2026",
        "2604.01234 OR NOT x",
    ],
)
def test_a_query_as_it_was_read_reads_the_same(text):
    node = parse(text).node
    assert parse(described(node)).node == node
