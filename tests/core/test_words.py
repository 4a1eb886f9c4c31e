"""Stemmers and stop lists on which kept results depend."""

from __future__ import annotations

import re
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nltk.stem.porter import PorterStemmer

from etude.core import words

SUFFIXES = sorted(
    words.word_set(
        "ational tional enci anci izer bli alli entli eli ousli ization ation ator alism iveness "
        "fulness ousness aliti iviti biliti fulli logi icate ative alize iciti ical ful ness al "
        "ance ence er ic able ible ant ement ment ent ion ou ism ate iti ous ive ize ies ied eed "
        "ed ing s sses e y ll at bl iz"
    )
)
PROSE = sorted(
    {
        word
        for file in Path(__file__).parents[2].glob("docs/*.md")
        for word in re.findall(r"[a-z0-9]+", file.read_text("utf-8").lower())
    }
)


def test_porter_is_nltks_on_prose():
    assert len(PROSE) > 1000
    nltk = PorterStemmer()
    assert [words.porter_stem(word) for word in PROSE] == [nltk.stem(word) for word in PROSE]


@given(
    st.builds(
        "{}{}".format,
        st.text("abceiostyulz1", max_size=5),
        st.lists(st.sampled_from(SUFFIXES), max_size=3).map("".join),
    )
)
def test_porter_is_nltks_on_heaped_suffixes(word):
    assert words.porter_stem(word) == PorterStemmer().stem(word)


@pytest.mark.parametrize("word", ["skies", "dying", "news", "innings", "succeed", "sky", "howe"])
def test_porter_is_nltks_on_irregular_words(word):
    assert words.porter_stem(word) == PorterStemmer().stem(word)


@pytest.mark.parametrize(
    ("word", "stem"),
    [
        ("computational", "computat"),
        ("normalization", "normaliz"),
        ("generalisation", "generaliz"),
        ("representations", "representat"),
        ("segmentation", "segmentat"),
        ("increasingly", "increas"),
        ("similarities", "similarity"),
        ("robustness", "robustness"),
        ("happiness", "happiness"),
        ("training", "train"),
        ("studies", "study"),
        ("proposed", "propos"),
        ("efficiently", "efficient"),
        ("classes", "class"),
        ("models", "model"),
        ("ring", "ring"),
        ("yolov8", "yolov8"),
        ("the", "the"),
    ],
)
def test_the_stems_that_the_ranking_model_was_trained_on(word, stem):
    assert words.strip_suffix(word) == stem


@pytest.mark.parametrize(
    ("word", "one"),
    [
        ("networks", "network"),
        ("studies", "study"),
        ("ties", "tie"),
        ("boxes", "box"),
        ("losses", "loss"),
        ("branches", "branch"),
        ("corpus", "corpus"),
        ("analysis", "analysis"),
        ("gas", "gas"),
    ],
)
def test_singulars_are_words(word, one):
    assert words.singular(word) == one


def test_drop_plural_s_treats_all_words_alike():
    assert words.drop_plural_s("gpus", shortest=3) == "gpu"
    assert words.drop_plural_s("vms", shortest=3) == "vm"
    assert words.drop_plural_s("its", shortest=4) == "its"


def test_the_stop_list_that_the_ranking_model_was_trained_on():
    """A changed checksum means that summaries/ranker.npz has to be trained anew."""
    listed = " ".join(sorted(words.RANKER_STOP_WORDS))
    assert (len(words.RANKER_STOP_WORDS), zlib.crc32(listed.encode())) == (100, 3029422767)


def test_longer_lists_contain_the_shorter():
    assert words.FUNCTION_WORDS < words.STOP_WORDS
    assert words.STOP_WORDS < words.VOCABULARY_STOP_WORDS
