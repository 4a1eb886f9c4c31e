"""Checks of instructions: what follows one, and what nearly does."""

from __future__ import annotations

import pytest

from etude.tuning.forgetting.instructions import CHECKS, Instruction, instructions

CASES = [
    ("lowercase", {}, "the sea is blue, isn't it?", "The sea is blue."),
    ("lowercase", {}, "über alles ein fluß", "123"),
    ("uppercase", {}, "PARIS, OF COURSE!", "PARIS, of COURSE!"),
    ("words", {"most": 3}, "don't worry, friend", "one two three four"),
    ("words", {"least": 3}, "one two three", "one two"),
    ("words", {"least": 2, "most": 3}, "well-known fact", "a"),
    ("sentences", {"exactly": 2}, 'It rains. "Does it?"', "It rains. Does it? Yes."),
    ("sentences", {"exactly": 1}, "It costs 3.50 in all", "One. Two"),
    ("bullets", {"exactly": 2}, "- red\n- blue", "- red\n- blue\n- green"),
    ("bullets", {"exactly": 2}, "* red\n\n• blue", "-red\n-blue"),
    ("numbered", {"exactly": 2}, "1. Spain\n2) Italy", "1 Spain\n2 Italy"),
    ("lines", {"exactly": 2}, "one\n\ntwo", "one two"),
    ("contains", {"words": ["rose", "wall"]}, "A Rose, a WALL.", "Roses on a wall"),
    ("avoids", {"words": ["hot"]}, "A hotel", "It is Hot!"),
    ("without", {"characters": "0123456789"}, "seven", "7"),
    ("starts", {"text": "dear customer"}, '"Dear customer, sorry', "Hello, dear customer"),
    ("ends", {"text": "ocean"}, "in the Ocean.", "the ocean is big"),
    ("ends", {"text": "?"}, "Is it?", "It is."),
    ("one_of", {"answers": ["yes", "no"]}, "Yes.", "Yes, it is"),
    ("number", {}, "1914.", "In 1914"),
    ("json", {"keys": ["a", "b"]}, '{"b": 1, "a": []}', '{"a": 1}'),
    ("json", {"keys": ["a"]}, '```json\n{"a": 1}\n```', 'Here: {"a": 1}'),
    ("json", {"keys": ["a"]}, '{"a": {}}', "[" * 100_000),
    ("quoted", {}, "“Honesty is truth.”", '"Honesty" is truth.'),
    ("matches", {"pattern": "<<[^<>\\n]+>>"}, "<<Stars>>\nshine", "<Stars>"),
    ("parts", {"separator": "***", "exactly": 2}, "one\n***\ntwo", "one *** two"),
    ("parts", {"separator": "---", "exactly": 2}, "a\n---\nb\n---", "a\n---\n---"),
    ("repeats", {"word": "go", "least": 3}, "Go, go, GO!", "gogogo"),
    ("repeats", {"word": "please", "least": 2, "most": 2}, "Please, please", "please"),
]


@pytest.mark.parametrize(("check", "options", "follows", "fails"), CASES)
def test_a_check_tells_what_follows_from_what_does_not(check, options, follows, fails):
    instruction = Instruction("", check, options)
    assert instruction.followed(f"  {follows}\n")
    assert not instruction.followed(fails)


def test_every_check_has_a_case_and_an_instruction():
    assert {case[0] for case in CASES} == set(CHECKS) == {one.check for one in instructions()}


def test_there_are_a_hundred_different_instructions_and_no_answer_fits_all():
    shipped = instructions()
    assert len({one.prompt for one in shipped}) == len(shipped) == 100
    for answer in ("", "   \n", "No.", "Sure! Here are 3 things, all of them good:\n\n1. A\n2. B"):
        followed = [one.followed(answer) for one in shipped]
        assert sum(followed) < 30
    assert not any(one.followed(" \n") for one in shipped)
