"""News of searches and authors: each once, versions never, with two programs looking at once."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from datetime import date

import pytest

from etude.core.errors import EtudeError
from etude.papers.library import Library
from etude.papers.ranking.alerts import alerts, waiting
from etude.papers.reader import Reader
from etude.papers.record import Announcement, Sighting


@dataclass
class Found:
    ids: list[str]


class TitleIndex:
    """Finds a word in titles; knows only what it has refreshed, as a real index does."""

    def __init__(self, library):
        self.library, self.rows, self.mark = library, {}, 0

    def refresh(self):
        taken = 0
        for page in self.library.since(self.mark):
            for row in page:
                self.rows[row["id"]] = row
                self.mark = max(self.mark, row["revision"])
                taken += 1
        return taken

    def search(self, text, *, order="newest", most=20, offset=0, since=None):
        assert order == "newest"
        if text.count('"') % 2:
            raise EtudeError("a quotation mark is not closed")
        found = [
            row
            for row in self.rows.values()
            if text.casefold() in row["title"].casefold() and row["announced"] >= (since or "")
        ]
        found.sort(key=lambda row: (row["announced"], row["id"]), reverse=True)
        return Found([row["id"] for row in found[offset : offset + most]])


def paper(number, title, day=10, kind=Announcement.NEW, **changes):
    values = {
        "id": f"2403.{number:05}",
        "title": title,
        "abstract": "An abstract.",
        "authors": ("Ada Lovelace",),
        "categories": ("cs.CV",),
        "version": 1,
        "announced": date(2024, 3, day),
        "announcement": kind,
    }
    return Sighting(**{**values, **changes})


@pytest.fixture
def library(engine):
    library = Library(engine)
    library.put([paper(1, "YOLO one"), paper(2, "Trees")])
    return library


@pytest.fixture
def index(library):
    return TitleIndex(library)


@pytest.fixture
def reader(library):
    reader = Reader(library.engine, "ada")
    reader.save_search("detectors", "yolo")
    return reader


def ids(found):
    return [key for alert in found for key in alert.ids]


def test_what_was_there_before_the_search_is_no_news(reader, library, index):
    assert alerts(reader, library, index) == []


def test_each_new_paper_is_shown_once(reader, library, index):
    library.put([paper(3, "YOLO two", 11), paper(4, "Stones", 11), paper(5, "More YOLO", 12)])
    (alert,) = alerts(reader, library, index)
    assert (alert.name, alert.kind, alert.ids) == (
        "detectors",
        "search",
        ("2403.00005", "2403.00003"),
    )
    assert alerts(reader, library, index) == []
    library.put([paper(6, "YOLO three", 13)])
    assert ids(alerts(reader, library, index)) == ["2403.00006"]


def test_new_versions_are_no_news(reader, library, index):
    library.put([paper(1, "YOLO one, revised", 20, Announcement.REPLACE, version=2)])
    library.put([paper(2, "Trees by YOLO", 20, Announcement.REPLACE, version=2)])
    assert alerts(reader, library, index) == []


def test_an_old_paper_first_seen_with_a_replacement_is_no_news(reader, library, index):
    library.put([paper(7, "An old YOLO", 20, Announcement.REPLACE, version=3)])
    assert alerts(reader, library, index) == []


def test_a_back_fill_is_no_news_and_a_late_paper_is(reader, library, index):
    library.put(
        [
            paper(8, "YOLO of long ago", 1, announced=date(2023, 1, 5)),
            paper(9, "YOLO overlooked last week", 4),
        ]
    )
    assert ids(alerts(reader, library, index)) == ["2403.00009"]


def test_a_withdrawn_paper_is_no_news(reader, library, index):
    library.put([paper(3, "YOLO two", 11, withdrawn=True)])
    assert alerts(reader, library, index) == []


def test_followed_authors_have_news_in_any_spelling(reader, library, index):
    reader.follow("José García")
    library.put([paper(3, "Stones", 11, authors=("Ada Lovelace", "J. Garcia"))])
    (alert,) = alerts(reader, library, index)
    assert (alert.name, alert.kind, alert.ids) == ("José García", "author", ("2403.00003",))
    assert alerts(reader, library, index) == []
    library.put([paper(3, "Stones", 12, Announcement.REPLACE, version=2, authors=("J. Garcia",))])
    assert alerts(reader, library, index) == []


def test_a_paper_of_several_stands_once_and_names_the_others(reader, library, index):
    reader.follow("Ada Lovelace")
    reader.save_search("trees", "tree")
    library.put([paper(3, "YOLO for trees", 11), paper(4, "Trees again", 11)])
    found = alerts(reader, library, index)
    assert [(alert.name, alert.ids) for alert in found] == [
        ("detectors", ("2403.00003",)),
        ("trees", ("2403.00004",)),
    ]
    assert found[0].also == {"2403.00003": ("trees", "Ada Lovelace")}


def test_a_search_with_a_new_query_starts_anew_and_the_same_query_does_not(reader, library, index):
    library.put([paper(3, "YOLO two", 11), paper(4, "Stones", 11)])
    reader.save_search("detectors", "yolo")
    assert ids(waiting(reader, library, index).alerts) == ["2403.00003"]
    reader.save_search("detectors", "stone")
    assert alerts(reader, library, index) == []
    library.put([paper(5, "A stone", 12)])
    assert ids(alerts(reader, library, index)) == ["2403.00005"]


def test_what_was_not_delivered_waits(reader, library, index):
    library.put([paper(3, "YOLO two", 11)])
    first = waiting(reader, library, index)
    second = waiting(reader, library, index)
    assert ids(first.alerts) == ids(second.alerts) == ["2403.00003"]
    library.put([paper(4, "YOLO three", 12)])
    assert ids(first.shown()) == ["2403.00003"]
    assert second.shown() == []
    assert ids(alerts(reader, library, index)) == ["2403.00004"]


def test_a_search_that_cannot_be_made_waits_and_says_why(reader, library, index):
    reader.save_search("broken", '"yolo')
    library.put([paper(3, "YOLO two", 11)])
    found = waiting(reader, library, index)
    assert found.problems == ["saved search 'broken': a quotation mark is not closed"]
    assert ids(found.shown()) == ["2403.00003"]
    (search,) = [one for one in reader.searches() if one.name == "broken"]
    assert search.seen == 2


def test_many_matches_are_all_told(reader, library, index):
    library.put([paper(number, f"YOLO {number}", 11) for number in range(3, 1303)])
    assert len(ids(alerts(reader, library, index))) == 1300


def test_two_programs_at_once_show_each_paper_once(reader, library):
    reader.follow("Ada Lovelace")
    library.put([paper(number, f"YOLO {number}", 11) for number in range(3, 23)])
    library.put([paper(30, "Stones", 11)])
    shown, errors = [], []
    gate = threading.Barrier(3)

    def look():
        try:
            own = TitleIndex(library)
            found = waiting(Reader(library.engine, "ada"), library, own)
            gate.wait()
            shown.extend(ids(found.shown()))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=look) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert sorted(shown) == sorted(set(shown))
    assert len(shown) == 21


def test_readers_are_told_apart(reader, library, index):
    other = Reader(library.engine, "grace")
    other.save_search("detectors", "yolo")
    library.put([paper(3, "YOLO two", 11)])
    assert ids(alerts(reader, library, index)) == ["2403.00003"]
    assert ids(alerts(other, library, index)) == ["2403.00003"]


def test_following_again_starts_anew(reader, library, index):
    reader.follow("Grace Hopper")
    reader.unfollow("Grace Hopper")
    library.put([replace(paper(3, "Stones", 11), authors=("Grace Hopper",))])
    reader.follow("Grace Hopper")
    assert alerts(reader, library, index) == []
