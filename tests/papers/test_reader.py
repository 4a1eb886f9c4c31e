"""What a reader gives is kept, in SQLite and in PostgreSQL, and comes back from an export."""

from __future__ import annotations

import json
import secrets
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.core.errors import PapersError
from etude.papers.authors import followed_among, same_author
from etude.papers.library import Library
from etude.papers.reader import Reader
from etude.papers.record import Sighting
from etude.store.engine import open_store


class Clock:
    def __init__(self):
        self.now = 1_700_000_000.0

    def __call__(self):
        self.now += 1
        return self.now


def paper(number, **changes):
    values = {
        "id": f"2403.{number:05}",
        "title": f"Title {number}",
        "abstract": f"Abstract {number}.",
        "authors": ("Ada Lovelace",),
        "categories": ("cs.CV",),
        "version": 1,
    }
    return Sighting(**{**values, **changes})


@pytest.fixture
def library(engine):
    library = Library(engine)
    library.put([paper(number) for number in range(1, 9)])
    return library


@pytest.fixture
def reader(library):
    return Reader(library.engine, "ada", Clock())


def test_the_last_opinion_counts_and_can_be_taken_back(reader):
    assert reader.like("2403.00001")
    assert reader.like("arXiv:2403.00002v3")
    assert not reader.like("2403.00001")
    assert reader.dislike("2403.00001")
    assert reader.opinions() == {"2403.00002": 1, "2403.00001": -1}
    assert reader.unlike("2403.00001")
    assert not reader.unlike("2403.00001")
    assert reader.opinions() == {"2403.00002": 1}


def test_readers_do_not_see_each_other(reader, library):
    other = Reader(library.engine, "grace")
    reader.like("2403.00001")
    reader.tag("2403.00001", "x")
    reader.follow("Ada Lovelace")
    reader.save_search("s", "yolo")
    assert (other.opinions(), other.tags(), other.following(), other.searches()) == ({}, {}, [], [])
    assert not other.unlike("2403.00001")
    assert not other.drop_search("s")
    assert other.unfollow("Ada Lovelace") == []
    assert reader.following() == ["Ada Lovelace"]


@pytest.mark.parametrize("bad", ["", "YOLO", "2403.1", "../../etc/passwd", "2403.00001'; --", None])
def test_what_is_no_id_is_refused_in_one_line(reader, bad):
    for verb in (reader.like, reader.dislike, reader.unlike, reader.tags_of):
        with pytest.raises(PapersError, match="is not an arXiv id") as caught:
            verb(bad)
        assert "\n" not in str(caught.value)


def test_a_paper_that_is_not_kept_here_is_said_to_be_unknown(reader):
    for verb in (reader.like, reader.dislike, lambda key: reader.tag(key, "x")):
        with pytest.raises(PapersError, match=r"paper 2403\.99999 is not in the library"):
            verb("2403.99999")
    assert reader.opinions() == {}


def test_tags_are_kept_once_each_and_the_last_one_comes_first(reader):
    assert reader.tag("2403.00001", "to read")
    assert reader.tag("2403.00002", "to read")
    assert not reader.tag("2403.00001", " to\tread ")
    assert reader.tag("2403.00001", "détection")
    assert reader.tags() == {"to read": ["2403.00002", "2403.00001"], "détection": ["2403.00001"]}
    assert reader.tags_of("2403.00001") == ["détection", "to read"]
    assert reader.untag("2403.00001", "to read")
    assert not reader.untag("2403.00001", "to read")
    assert reader.tags_of("2403.00001") == ["détection"]


def test_a_note_is_kept_in_lines_replaced_and_removed(reader, library):
    assert reader.note("2403.00001", "First.\r\n\tSecond.\u202e\n\n")
    assert reader.note_of("2403.00001") == "First.\n\tSecond."
    assert not reader.note("2403.00001", "First.\n\tSecond.")
    assert reader.note("arXiv:2403.00002", "Newer")
    assert list(reader.notes()) == ["2403.00002", "2403.00001"]
    assert reader.note("2403.00001", " \n ")
    assert reader.note_of("2403.00001") == ""
    assert Reader(library.engine, "grace").notes() == {}
    with pytest.raises(PapersError, match="at most 20,000 characters"):
        reader.note("2403.00001", "x" * 20_001)
    with pytest.raises(PapersError, match="not in the library"):
        reader.note("2403.99999", "x")


def test_of_two_notes_the_newer_wins(reader, library):
    reader.note("2403.00001", "older")
    kept = json.loads(json.dumps(reader.export()))
    reader.note("2403.00001", "newer")
    assert reader.restore(kept) == 0
    assert reader.note_of("2403.00001") == "newer"
    other = Reader(library.engine, "other")
    assert other.restore(kept) == 1
    assert other.notes() == {"2403.00001": "older"}
    assert other.restore(reader.export()) == 1
    assert other.notes() == {"2403.00001": "newer"}


def test_the_stamp_changes_with_all_that_ranks_and_with_nothing_else(reader):
    assert reader.stamp() == ""
    seen = {""}
    for change in (
        lambda: reader.like("2403.00001"),
        lambda: reader.dislike("2403.00001"),
        lambda: reader.tag("2403.00001", "x"),
        lambda: reader.follow("Ada Lovelace"),
        lambda: reader.unfollow("Ada Lovelace") and reader.follow("Grace Hopper"),
    ):
        change()
        assert reader.stamp() not in seen
        seen.add(reader.stamp())
    before = reader.stamp()
    reader.note("2403.00001", "a note")
    reader.save_search("s", "yolo")
    assert reader.stamp() == before


@given(text=st.text(max_size=300))
def test_any_text_is_kept_on_one_line_or_refused_in_one(text):
    engine = _shared_engine()
    reader = Reader(engine, "hostile")
    for keep, read in (
        (lambda: reader.tag("2403.00001", text), lambda: list(reader.tags())),
        (
            lambda: reader.note("2403.00001", text.replace("\n", " ")),
            lambda: [
                line
                for note in reader.notes().values()
                for line in note.splitlines()
                if line.strip()
            ],
        ),
        (lambda: reader.follow(text), reader.following),
        (lambda: reader.save_search("s", text), lambda: [one.query for one in reader.searches()]),
    ):
        try:
            keep()
        except PapersError as error:
            assert "\n" not in str(error)
        assert all(kept.isprintable() or " " in kept or "\u2028" not in kept for kept in read())
        assert all("\x00" not in kept and "\n" not in kept and kept.strip() for kept in read())
    # A new user each time: restoring only adds, so nothing of another example may stay.
    again = Reader(engine, secrets.token_hex(8))
    again.restore(json.loads(json.dumps(reader.export())))
    assert again.export() == reader.export()


_ENGINES = []


def _shared_engine():
    if not _ENGINES:
        engine = open_store("sqlite://")
        Library(engine).put([paper(1)])
        _ENGINES.append(engine)
    return _ENGINES[0]


@pytest.mark.parametrize("name", ["", "  ", "\u202e", "x" * 81, None])
def test_a_reader_needs_a_name_that_can_be_shown(library, name):
    with pytest.raises(PapersError, match="a reader's name"):
        Reader(library.engine, name)


@pytest.mark.parametrize(
    ("followed", "author", "same"),
    [
        ("Kaiming He", "K. He", True),
        ("K. He", "Kaiming He", True),
        ("He, Kaiming", "kaiming he", True),
        ("Kai-Ming He", "Kaiming He", True),
        ("José García", "Jose Garcia", True),
        ("J. Müller", "Jürgen Mueller", True),
        ("Bjørn Łukasz", "Bjorn Lukasz", True),
        ("Jean-Pierre Serre", "J.-P. Serre", True),
        ("Jean-Pierre Serre", "JP Serre", True),
        ("Laurens van der Maaten", "L. Van Der Maaten", True),
        ("van der Maaten, Laurens", "Laurens van der Maaten", True),
        ("Michael I. Jordan", "Michael Jordan", True),
        ("Martin Luther King, Jr.", "Martin Luther King", True),
        ("LeCun", "Yann LeCun", True),
        ("DeepSeek-AI", "DeepSeek-AI", True),
        ("Kaiming He", "Kaiming Hu", False),
        ("Kaiming He", "Xiangming He", False),
        ("Michael I. Jordan", "Michael B. Jordan", False),
        ("Yann LeCun", "LeCun", False),
        ("Wei Li", "Wen Li", False),
    ],
)
def test_the_same_author_is_known_in_other_spellings(followed, author, same):
    assert same_author(followed, author) is same
    assert followed_among(["Nobody Else", followed], ["Some One", author]) == (
        [followed] if same else []
    )


@given(first=st.text(max_size=60), second=st.text(max_size=60))
def test_any_name_is_itself_and_no_name_breaks_the_matching(first, second):
    same_author(first, second)
    if any(letter.isalnum() for letter in first):
        assert same_author(first, first)


def test_authors_are_unfollowed_in_another_spelling(reader):
    reader.follow("Yann LeCun")
    reader.follow("Kaiming He")
    assert not reader.follow("Kaiming He")
    assert reader.unfollow("K. He") == ["Kaiming He"]
    assert reader.unfollow("K. He") == []
    assert reader.following() == ["Yann LeCun"]


def test_searches_are_kept_by_name(reader):
    assert reader.save_search("detectors", 'yolo "real time"')
    assert not reader.save_search("detectors", 'yolo "real time"')
    assert reader.search("detectors").query == 'yolo "real time"'
    assert reader.save_search("detectors", "detr")
    with pytest.raises(PapersError, match="did you mean 'detectors'"):
        reader.search("detector")
    assert reader.drop_search("detectors")
    assert reader.searches() == []


def fill(reader):
    reader.like("2403.00001")
    reader.dislike("2403.00002")
    reader.tag("2403.00003", "später")
    reader.tag("2403.00001", "später")
    reader.follow("Kaiming He")
    reader.save_search("detectors", "yolo")


def test_an_export_restores_everything_and_twice_is_once(reader, library, tmp_path):
    fill(reader)
    kept = json.loads(json.dumps(reader.export()))
    elsewhere = Reader(open_store(f"sqlite:///{tmp_path / 'other.sqlite3'}"), "ada")
    assert elsewhere.restore(kept) == 6
    assert elsewhere.export() == kept
    assert elsewhere.restore(kept) == 0
    assert reader.restore(kept) == 0
    assert reader.export() == kept


def test_restoring_merges_and_the_younger_opinion_stays(reader, library):
    fill(reader)
    old = reader.export()
    reader.dislike("2403.00001")
    reader.like("2403.00005")
    reader.save_search("detectors", "yolo OR detr")
    now = reader.export()
    reader.restore(old)
    assert reader.export() == now
    fresh = Reader(library.engine, "grace")
    fresh.restore(now)
    fresh.restore(old)
    assert fresh.export() == now


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda kept: kept.update(format="x"), "not an exported reader"),
        (lambda kept: kept.update(version=2), "update Etude"),
        (lambda kept: kept.update(opinions={}), "opinions: expected a list"),
        (lambda kept: kept["opinions"].append(3), "opinions, entry 3"),
        (lambda kept: kept["opinions"][1].update(id="x"), "opinions, entry 2: 'x' is not"),
        (
            lambda kept: kept["opinions"][1].update(value=7),
            "opinions, entry 2: `value` must be 1 or -1",
        ),
        (
            lambda kept: kept["opinions"][1].update(at=float("nan")),
            "entry 2: `at` must be a number",
        ),
        (lambda kept: kept["tags"][0].pop("tag"), "tags, entry 1: a tag must be text"),
        (
            lambda kept: kept["searches"][0].update(query=""),
            "searches, entry 1: a search must have",
        ),
    ],
)
def test_a_damaged_export_is_refused_whole(reader, library, change, says):
    fill(reader)
    kept = json.loads(json.dumps(reader.export()))
    change(kept)
    fresh = Reader(library.engine, "grace")
    with pytest.raises(PapersError, match=says):
        fresh.restore(kept)
    assert fresh.export()["tags"] == []


@pytest.mark.parametrize("kept", [None, [], "x", 3, {}])
def test_what_is_no_export_is_refused(reader, kept):
    with pytest.raises(PapersError, match="not an exported reader"):
        reader.restore(kept)


def test_two_writers_at_once_lose_nothing(library):
    errors = []

    def write(mine):
        reader = Reader(library.engine, "ada")
        try:
            for number in range(1, 9):
                reader.like(f"2403.{number:05}")
                reader.tag(f"2403.{number:05}", mine)
                reader.follow(f"Author {number}")
                reader.save_search(f"{mine} {number}", "yolo")
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(name,)) for name in ("one", "two", "three")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    reader = Reader(library.engine, "ada")
    assert errors == []
    assert len(reader.opinions()) == 8
    assert {tag: len(ids) for tag, ids in reader.tags().items()} == {"one": 8, "two": 8, "three": 8}
    assert len(reader.following()) == 8
    assert len(reader.searches()) == 24
