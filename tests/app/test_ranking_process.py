"""The process that ranks for the web app: its answers, its end, and what it does without."""

from __future__ import annotations

from datetime import date

import pytest

from etude.app.papers.opening import open_library
from etude.app.papers.ranking_process import RankingProcess
from etude.papers.reader import Reader
from etude.papers.record import Announcement, Sighting

pytestmark = pytest.mark.integration

DAY = {"day": "2026-04-02", "shelf": None, "replaced": False}
PATIENT = 60.0


def paper(number):
    return Sighting(
        f"2604.{number:05}",
        f"{'Walrus tracking' if number % 2 else 'Protein folding'} {number}",
        f"We study {'walruses and tracking' if number % 2 else 'proteins and folding'}.",
        ("Ada Lovelace",),
        ("cs.LG",),
        announced=date(2026, 4, 2),
        announcement=Announcement.NEW,
    )


@pytest.fixture
def ranking(tmp_path, monkeypatch):
    monkeypatch.setenv("ETUDE_HOME", str(tmp_path))
    monkeypatch.setenv("ETUDE_DATABASE", "")
    library = open_library()
    library.put([paper(number) for number in range(1, 21)])
    ranking = RankingProcess(library, Reader(library.engine, "ada"))
    ranking.reader = ranking._reader
    yield ranking
    ranking.close()
    library.engine.dispose()


def test_it_ranks_as_the_command_line_does_and_keeps_its_answers(ranking):
    from etude.app.papers.opening import open_settings
    from etude.app.papers.reading import papers_of_day

    ranking.reader.like("2604.00001")
    answer = ranking.ask("day", PATIENT, **DAY)
    assert answer.current
    here = papers_of_day(ranking._library, ranking.reader, open_settings(), day="2026-04-02")
    assert [key for key, _ in answer.value] == [one.row["id"] for one in here.papers]
    assert ranking.answered == 1
    assert ranking.ask("day", 0, **DAY) == answer
    assert ranking.answered == 1


def test_after_a_change_the_last_answer_is_shown_until_there_is_a_new_one(ranking):
    ranking.reader.like("2604.00001")
    first = ranking.ask("day", PATIENT, **DAY)
    ranking.reader.like("2604.00002")
    meanwhile = ranking.ask("day", 0, **DAY)
    assert meanwhile.current or meanwhile.value == first.value
    assert ranking.ask("day", PATIENT, **DAY).current


def test_without_an_answer_there_is_none(ranking):
    ranking.reader.like("2604.00001")
    answer = ranking.ask("day", 0, **DAY)
    assert (answer.value, answer.current) == (None, False)


def test_a_killed_process_is_started_again(ranking):
    assert ranking.ask("related", PATIENT, paper="2604.00001").problem == ""
    ranking._warm.process.kill()
    ranking._warm.process.wait()
    assert ranking.ask("related", PATIENT, paper="2604.00002").problem == ""


@pytest.mark.parametrize("what", ["related", "why"])
def test_what_cannot_be_computed_says_why_and_ends_nothing(ranking, what):
    ranking.reader.like("2604.00001")
    answer = ranking.ask(what, PATIENT, paper="2604.99999")
    assert "not among the papers here" in answer.problem
    process = ranking._warm.process
    assert ranking.ask(what, PATIENT, paper="2604.00001").problem == ""
    assert ranking._warm.process is process


def test_closed_it_starts_no_process_again(ranking):
    ranking.reader.like("2604.00001")
    ranking.ask("day", 0, **DAY)
    ranking.close()
    ranking._queue.shutdown(wait=True)
    assert ranking._warm.process is None or ranking._warm.process.poll() is not None
