"""Marks in the texts of found papers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.papers.search.snippets import LONGEST, Marker


def marked(query, text, field="abstract"):
    return [piece for piece, matched in Marker(query).marked(text, field) if matched]


@pytest.mark.parametrize(
    ("query", "text", "words"),
    [
        ("yolo", "YOLOv8 and YOLO-World, not a yodel", ["YOLOv8", "YOLO"]),
        ("detector", "We detect; detectors detect.", ["detectors"]),
        ("networks", "A network of networks", ["network", "networks"]),
        ("diffus*", "Diffusion diffuses, confusion does not", ["Diffusion", "diffuses"]),
        ('"object detection"', "Object detection", ["Object", "detection"]),
        ("cat -dog", "A cat, no dog", ["cat"]),
        ("cat OR dog", "A cat, a dog", ["cat", "dog"]),
        ("title:cat", "A cat", []),
        ("cat:cs.CV since:2026-01", "A cat in cs.CV", []),
        ("café", "The CAFE", ["CAFE"]),
        ('"open', "open", []),
        ("", "nothing", []),
    ],
)
def test_what_a_query_wants_is_marked_and_what_it_excludes_is_not(query, text, words):
    assert marked(query, text) == words


def test_fields_are_marked_in_their_own_texts_alone():
    assert marked("title:cat", "A cat", "title") == ["cat"]
    assert marked("author:lovelace", "Ada Lovelace", "author") == ["Lovelace"]
    assert marked("author:lovelace", "Lovelace", "abstract") == []


def test_the_snippet_is_the_sentence_with_most_of_the_words():
    abstract = "We present cats. Dogs chase cats in parks. Nothing else."
    pieces = Marker("dog cat park").snippet(abstract)
    assert "".join(piece for piece, _ in pieces) == "Dogs chase cats in parks."
    assert Marker("walrus").snippet(abstract) == []


def test_a_long_sentence_is_cut_around_its_first_match():
    abstract = f"{'before ' * 60}walrus {'after ' * 60}end."
    pieces = Marker("walrus").snippet(abstract)
    text = "".join(piece for piece, _ in pieces)
    assert text.startswith("… before")
    assert text.endswith(" …")
    assert ("walrus", True) in pieces
    assert len(text) <= LONGEST + 4


@given(text=st.text(max_size=300), query=st.text(max_size=60))
def test_pieces_are_the_text_again(text, query):
    assert "".join(piece for piece, _ in Marker(query).marked(text, "title")) == text
    Marker(query).snippet(text)
