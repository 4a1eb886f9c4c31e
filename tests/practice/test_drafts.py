"""Drafts: what two tabs do to one, and what neither can do."""

import pytest

from etude.core.errors import ProblemError
from etude.practice.drafts import MOST_CHARACTERS, Drafts

A, B = "a" * 16, "b" * 16


@pytest.fixture
def drafts(engine):
    return Drafts(engine, "ada")


def test_a_draft_grows_by_a_revision_with_each_change(drafts):
    assert drafts.read("x") is None
    first, agrees = drafts.save("x", "one", 0, A)
    assert (first.revision, agrees) == (1, True)
    second, agrees = drafts.save("x", "two", 1, A)
    assert (second.revision, agrees) == (2, True)
    again, agrees = drafts.save("x", "two", 2, A)
    assert (again.revision, agrees) == (2, True)
    assert drafts.read("x").source == "two"


@pytest.mark.parametrize("began_at", [0, 1])
def test_code_that_began_at_an_older_revision_is_kept_beside_the_draft(drafts, began_at):
    drafts.save("x", "one", 0, A)
    drafts.save("x", "two", 1, A)
    current, agrees = drafts.save("x", "other", began_at, B)
    assert (current.source, agrees) == ("two", False)
    drafts.save("x", "other, longer", began_at, B)
    (copy,) = drafts.copies("x")
    assert (copy.source, copy.tab) == ("other, longer", B)
    assert drafts.read("x").source == "two"


def test_a_tab_with_the_same_code_is_no_conflict(drafts):
    drafts.save("x", "one", 0, A)
    current, agrees = drafts.save("x", "one", 0, B)
    assert (current.revision, agrees) == (1, True)
    assert drafts.copies("x") == []


@pytest.mark.parametrize(("copy", "left", "revision"), [(True, "other", 3), (False, "two", 2)])
def test_a_conflict_ends_by_choosing(drafts, copy, left, revision):
    drafts.save("x", "one", 0, A)
    drafts.save("x", "two", 1, A)
    drafts.save("x", "other", 1, B)
    drafts.choose("x", B, copy=copy)
    assert (drafts.read("x").source, drafts.read("x").revision) == (left, revision)
    assert drafts.copies("x") == []
    with pytest.raises(ProblemError, match="no longer there"):
        drafts.choose("x", B, copy=True)


def test_the_draft_itself_cannot_be_chosen_away(drafts):
    drafts.save("x", "one", 0, A)
    with pytest.raises(ProblemError):
        drafts.choose("x", "", copy=False)
    assert drafts.read("x").source == "one"


def test_each_user_and_each_problem_has_its_own(engine, drafts):
    drafts.save("x", "one", 0, A)
    assert drafts.read("y") is None
    other = Drafts(engine, "bob")
    assert other.read("x") is None
    assert other.save("x", "his", 0, A)[0].revision == 1
    assert drafts.read("x").source == "one"


def test_what_is_longer_than_a_submission_is_refused(drafts):
    with pytest.raises(ProblemError, match="256 KB"):
        drafts.save("x", "x" * (MOST_CHARACTERS + 1), 0, A)
