"""Where sentences end, beside how people split them."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.papers.sentences import sentences


@pytest.mark.parametrize(
    "parts",
    [
        ["As Smith et al. show, it works.", "We agree."],
        ["This holds (cf. Smith et al. 2019) in general.", "It is new."],
        ["Many do so, e.g. ResNet and VGG, i.e. deep ones.", "See Fig. 3 and Eq. 2 for more."],
        ["It gains 3.5 points vs. BERT v2.1 on SQuAD 1.1.", "Version 4.0.2 is out."],
        ["The code is at https://github.com/x.y.", "We hope it helps."],
        ["Can models reason?", "We ask whether they do!", "They do not."],
        ["J. R. Smith and A. Jones proposed it.", "We extend it."],
        ["It is written in C.", "The other is not."],
        ["GPT-4 is large (see Sec. 2).", "“Small” models suffice.", "(They are cheap.)"],
        ["It works on images, audio, etc. and on text.", "That is all."],
        ["We work with i.i.d. Gaussian noise w.r.t. Theta.", "Errors vanish."],
        ["We train models.", "iPhones run them.", "(ii) They are fast."],
        ["One sentence without a stop"],
    ],
)
def test_sentences_that_people_would_part(parts):
    assert sentences(" ".join(parts)) == parts


@pytest.mark.parametrize("text", ["", " ", "...", "?"])
def test_next_to_nothing(text):
    assert sentences(text) == ([text.strip()] if text.strip() else [])


@given(st.text(alphabet='aA1 .?!()"e.g,\n', max_size=200))
def test_nothing_is_lost(text):
    assert re.sub(r"\s", "", "".join(sentences(text))) == re.sub(r"\s", "", text)


def test_a_long_text_of_stops_takes_no_square_time():
    assert sentences("A. " * 50_000 + "." * 50_000 + "x")


def ends(parts):
    """Return how many letters, spaces apart, come before each boundary."""
    lengths = [len(re.sub(r"\s", "", part)) for part in parts]
    return {sum(lengths[:n]) for n in range(1, len(lengths))}


def test_boundaries_are_those_of_scitldr(shared_data):
    file = shared_data / "summarise" / "scitldr" / "test.jsonl"
    if not file.is_file():
        pytest.skip(f"no SciTLDR at {file}")
    both = ours = theirs = 0
    for line in file.open(encoding="utf-8"):
        parts = [" ".join(part.split()) for part in json.loads(line)["source"]]
        parts = [part for part in parts if part]
        found = ends(sentences(" ".join(parts)))
        # Where no stop is, the data set was split at the ends of lines.
        letters = re.sub(r"\s", "", " ".join(parts))
        stops = {end for end in ends(parts) if re.search(r"[.!?][\"”’')\]]*$", letters[:end])}
        both += len(found & stops)
        ours += len(found)
        theirs += len(stops)
    assert both / ours > 0.985
    assert both / theirs > 0.99
