"""Near-duplicates: found by signatures as by comparing all, up to the stated chance."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from etude.tuning.data.duplicates import NearDuplicates, jaccard

WORDS = [f"w{i}" for i in range(400)]


def shingles(words: list[str], width: int) -> set[tuple[str, ...]]:
    return {tuple(words[i : i + width]) for i in range(len(words) - width + 1)}


def test_texts_above_the_threshold_are_found_and_those_below_are_not():
    chance = random.Random(0)
    found = NearDuplicates(width=3)
    base = [chance.choices(WORDS, k=80) for _ in range(200)]
    for words in base:
        assert not found.find(" ".join(words))
        found.add(" ".join(words))
    above = below = 0
    for words in base:
        changed = list(words)
        for place in chance.sample(range(80), chance.randint(1, 6)):
            changed[place] = "new"
        first, second = shingles(words, 3), shingles(changed, 3)
        similarity = len(first & second) / len(first | second)
        assert found.find(" ".join(changed)) == (similarity >= 0.8), similarity
        above, below = above + (similarity >= 0.8), below + (similarity < 0.8)
    assert above > 30 and below > 30, "both sides of the threshold are tried"


def test_renaming_one_variable_in_a_long_function_is_still_a_duplicate():
    source = "\n".join(f"    total_{i} = compute(values[{i}], scale={i})" for i in range(20))
    found = NearDuplicates(width=3)
    found.add(f"def f(values):\n{source}")
    assert found.find(f"def other(values):\n{source}")
    assert not found.find(f"def f(values):\n{source}".replace("values", "rows"))


def test_space_and_case_do_not_tell_texts_apart():
    found = NearDuplicates(width=1)
    found.add("Return the size of the file.")
    assert found.find("return  the size\nof the File.")
    assert not found.find("Return the name of the caller.")


@given(st.text(max_size=40))
def test_any_text_is_its_own_duplicate(text):
    found = NearDuplicates(width=3)
    assert not found.find(text)
    found.add(text)
    assert found.find(text)


def test_jaccard_is_the_shared_part_of_the_union():
    assert jaccard(frozenset({1, 2, 3}), frozenset({2, 3, 4})) == 0.5
