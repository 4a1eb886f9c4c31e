"""The reading room's services without a command line, against the fake arXiv server."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from etude.app.papers.collecting import collect_new, follow_up
from etude.app.papers.exchange import Selection, export_papers, import_papers
from etude.app.papers.opening import open_library, open_reader, open_settings
from etude.app.papers.reading import news, paper_details, papers_of_day, search_papers
from etude.core.errors import PapersError
from etude.papers.fake_arxiv import ReplayServer, generated


@pytest.fixture(scope="module")
def arxiv():
    with ReplayServer(generated(60, first=date.today() - timedelta(days=8), days=6)) as server:
        yield server


@pytest.fixture
def library(arxiv, installation, monkeypatch):
    """A library into which the last days' papers were collected."""
    monkeypatch.setenv("ETUDE_ARXIV", arxiv.address)
    with pytest.raises(PapersError, match="etude papers sync"):
        open_library(with_papers=True)
    library = open_library()
    lines: list[str] = []
    report = collect_new(library, open_settings(), show=lines.append)
    assert report.added == library.count() > 0 and not report.failed
    assert any("papers)" in line for line in lines)
    done = follow_up(library, show=lines.append)
    assert done.summaries == report.added and done.embedded == 0
    assert any(line.startswith("making summaries: ") for line in lines)
    yield library
    library.engine.dispose()


def test_what_was_collected_is_listed_by_what_its_reader_likes(library):
    reader, settings = open_reader(library), open_settings()
    before = papers_of_day(library, reader, settings)
    stored = [row["id"] for row in library.day(before.day)]
    assert before.no_likes and {paper.row["id"] for paper in before.papers} <= set(stored)
    assert all(paper.row["summary"] for paper in before.papers)

    liked = [paper.row["id"] for paper in before.papers[:3]]
    for key in liked:
        reader.like(key)
    reader.tag(liked[0], "to-read")
    after = papers_of_day(library, reader, settings)
    assert not after.no_likes and any(paper.why for paper in after.papers)
    by_id = {paper.row["id"]: paper for paper in after.papers}
    assert by_id[liked[0]].opinion == 1 and by_id[liked[0]].tags == ("to-read",)
    # What was judged comes last, and another user has other likes.
    assert {paper.row["id"] for paper in after.papers[-3:]} == set(liked)
    assert papers_of_day(library, open_reader(library, "grace"), settings).no_likes

    with pytest.raises(PapersError, match="there is no shelf 'visoin'"):
        papers_of_day(library, reader, settings, shelf="visoin")
    # A Saturday has no announcements, and says so.
    empty = papers_of_day(library, reader, settings, day="2020-01-04")
    assert empty.papers == [] and empty.why_empty


def test_pages_of_a_search_and_related_papers(library):
    reader = open_reader(library)
    first = search_papers(library, reader, "the OR a OR we", limit=4)
    second = search_papers(library, reader, "the OR a OR we", limit=4, page=2)
    ids = [paper.row["id"] for paper in (*first.papers, *second.papers)]
    assert len(set(ids)) == 8 and first.total == second.total >= 8
    found = paper_details(library, reader, f"https://arxiv.org/abs/{ids[0]}v1", related=3)
    assert found.paper.row["id"] == ids[0]
    assert 0 < len(found.related) <= 3 and ids[0] not in {row["id"] for row in found.related}
    with pytest.raises(PapersError, match=r"1901\.00001 is not among the papers here"):
        paper_details(library, reader, "1901.00001")


def test_papers_go_out_and_come_into_another_readers_hands(library, installation):
    reader = open_reader(library)
    keys = [row["id"] for row in library.day(library.last_day())][:2]
    reader.tag(keys[0], "to-read")
    made = export_papers(library, reader, Selection(keys[1:], tag="to-read"), "bibtex")
    assert made.papers == 2 and not made.missing and made.text.count("@") >= 2
    file = installation / "reading.bib"
    file.write_text(made.text, "utf-8")
    grace = open_reader(library, "grace")
    done = import_papers(library, grace, file, tag="from-ada", like=True)
    assert (done.entries, done.added, done.not_here) == (2, 0, 0)
    assert set(grace.tags()["from-ada"]) == set(grace.opinions()) == set(keys)
    with pytest.raises(PapersError, match="nothing to export"):
        export_papers(library, reader, Selection(), "bibtex")


def test_news_wait_until_they_were_shown(library):
    reader = open_reader(library)
    with pytest.raises(PapersError, match="nothing to watch"):
        news(library, reader)
    author = library.day(library.last_day())[0]["authors"][0]
    name = author if isinstance(author, str) else author["name"]
    reader.follow(name)
    waiting = news(library, reader)
    assert waiting.problems == []
    assert news(library, reader).alerts == waiting.alerts
    waiting.shown()
    assert news(library, reader).alerts == []
