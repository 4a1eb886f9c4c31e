"""Settings of the reading room, and arXiv's calendar."""

from datetime import UTC, date, datetime, timedelta

import pytest

from etude.core.errors import PapersError
from etude.papers.calendar import (
    EASTERN,
    deadline,
    expected_feed,
    feed_day,
    holidays,
    last_publication,
    next_feed,
    no_feed,
    publication,
)
from etude.papers.categories import CATEGORIES, category_of, oai_set
from etude.papers.settings import Settings


@pytest.fixture
def written(tmp_path):
    def write(text):
        path = tmp_path / "papers.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_without_a_file_there_are_defaults(monkeypatch, tmp_path):
    monkeypatch.setenv("ETUDE_HOME", str(tmp_path))
    monkeypatch.delenv("ETUDE_ARXIV", raising=False)
    settings = Settings.read()
    assert settings.categories == ("cs.CV", "cs.CL", "cs.LG", "stat.ML", "cs.AI")
    assert list(settings.shelves) == ["vision", "language", "learning"]
    assert settings.shelf_of(["cs.RO", "cs.CV", "stat.ML"]) == ["vision", "learning"]
    assert settings.shelf_of(["math.AG"]) == []
    assert settings.pause == 3


def test_a_file_changes_what_it_names(written, monkeypatch):
    monkeypatch.delenv("ETUDE_ARXIV", raising=False)
    settings = Settings.read(
        written(
            "categories: [cs.RO, hep-th]\nshelves:\n  robots: [cs.RO]\n"
            "contact: ada@example.org\ntries: 3\nmail: {host: localhost}\n"
        )
    )
    assert settings.categories == ("cs.RO", "hep-th")
    assert settings.shelf_of(["cs.RO"]) == ["robots"]
    assert "ada@example.org" in settings.agent
    assert settings.mail == {"host": "localhost"}


def test_other_categories_without_shelves_stand_on_one_of_their_own(written):
    settings = Settings.read(written("categories: cs.CV cs.RO"))
    assert settings.shelves == {"vision": ("cs.CV",), "other": ("cs.RO",)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("categories: [cs.CVV]", "unknown arXiv category 'cs.CVV' \\(did you mean 'cs.CV'"),
        ("categories: [CS.CV]", "unknown arXiv category 'CS.CV' \\(did you mean 'cs.CV'"),
        ("categories: []", "no categories"),
        ("categories: 7", "categories: invalid value 7"),
        ("catgories: [cs.CV]", "unknown key 'catgories' \\(did you mean 'categories'"),
        ("shelves: {vision: [cs.XX]}", "unknown arXiv category 'cs.XX'"),
        ("shelves: {robots: [cs.RO]}", "'robots' would stay empty"),
        ('shelves: {"../x": [cs.CV]}', "letters, digits and hyphens"),
        ("tries: 0", "tries"),
        ("tries: 2.5", "tries: invalid value 2.5"),
        ("pause: 1", "terms of use"),
        ("pause: .nan", "pause"),
        ("pause: yes", "pause: invalid value True"),
        ("oai: ftp://example.org", "not an http URL"),
        ("feed_format: json", "feed_format"),
        ("contact: 'a\\nb: c'", None),
        ('contact: "a\\nb: c"', "contact"),
        ("- cs.CV", "expected keys and values"),
        ("categories: [", "cannot be read"),
        ("first_days: 4000", "first_days"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(written, text, message):
    path = written(text)
    if message is None:
        Settings.read(path)
        return
    with pytest.raises(PapersError, match=message) as caught:
        Settings.read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_was_named_must_exist(tmp_path):
    with pytest.raises(PapersError, match="does not exist"):
        Settings.read(tmp_path / "none.yaml")


def test_a_replay_named_in_the_environment_stands_for_all_three(monkeypatch, tmp_path):
    monkeypatch.setenv("ETUDE_HOME", str(tmp_path))
    monkeypatch.setenv("ETUDE_ARXIV", "http://127.0.0.1:8123/")
    settings = Settings.read()
    assert settings.query == "http://127.0.0.1:8123/api/query"
    assert settings.oai == "http://127.0.0.1:8123/oai"
    assert settings.feeds == "http://127.0.0.1:8123"
    assert settings.pause == 0
    monkeypatch.setenv("ETUDE_ARXIV", "http://192.0.2.1:8123")
    assert Settings.read().pause == 3


def test_every_category_has_a_set_and_back():
    assert len(CATEGORIES) == 155
    assert {oai_set(name) for name in ("cs.CV", "stat.ML", "eess.IV", "hep-th", "math-ph")} == {
        *("cs:cs:CV", "stat:stat:ML", "eess:eess:IV", "physics:hep-th", "physics:math-ph"),
    }
    assert oai_set("astro-ph.GA") == "physics:astro-ph:GA"
    for category in CATEGORIES:
        assert category_of(oai_set(category)) == category


def eastern(day, hour, minute=0):
    return datetime(2026, 5, day, hour, minute, tzinfo=EASTERN)


@pytest.mark.parametrize(
    ("submitted", "feed"),
    [
        (eastern(4, 13, 59), 5),  # Monday before 14:00: announced on Monday, in Tuesday's feed
        (eastern(4, 14), 6),
        (eastern(7, 13), 8),
        (eastern(7, 15), 11),  # Thursday afternoon: announced on Sunday, in Monday's feed
        (eastern(8, 13), 11),
        (eastern(8, 14, 1), 12),
        (eastern(9, 3), 12),
        (eastern(10, 23), 12),
        (eastern(11, 9), 12),
    ],
)
def test_submissions_stand_in_the_feed_that_arxivs_calendar_says(submitted, feed):
    assert expected_feed(submitted) == date(2026, 5, feed)
    assert expected_feed(submitted.astimezone(UTC)) == date(2026, 5, feed)


def test_every_submission_is_before_the_deadline_of_its_feed_and_after_the_one_before():
    moment = datetime(2026, 1, 1, 0, 30, tzinfo=UTC)
    while moment.year == 2026:
        day = expected_feed(moment)
        assert no_feed(day) is None
        assert moment < deadline(day)
        earlier = day - timedelta(days=1)
        while no_feed(earlier) is not None:
            earlier -= timedelta(days=1)
        assert moment >= deadline(earlier) - timedelta(seconds=0)
        moment += timedelta(hours=5)


def test_holidays_of_the_published_list_and_of_other_years():
    assert set(holidays(2026)) == {
        *(date(2026, 1, 1), date(2026, 1, 19), date(2026, 6, 19), date(2026, 7, 3)),
        *(date(2026, 9, 7), date(2026, 11, 26), date(2026, 12, 25), date(2026, 12, 29)),
        date(2026, 12, 31),
    }
    assert date(2025, 11, 27) in holidays(2025)
    assert date(2027, 7, 5) in holidays(2027)
    assert no_feed(date(2026, 5, 9)) == "weekend"
    assert next_feed(date(2026, 11, 25)) == date(2026, 11, 27)


def test_days_are_those_of_the_american_east():
    assert feed_day(datetime(2026, 5, 5, 3, 59, tzinfo=UTC)) == date(2026, 5, 4)
    assert feed_day(datetime(2026, 5, 5, 4, tzinfo=UTC)) == date(2026, 5, 5)
    assert feed_day(datetime(2026, 12, 5, 4, 59, tzinfo=UTC)) == date(2026, 12, 4)


def test_oai_has_a_days_papers_on_the_evening_before():
    assert publication(date(2026, 5, 5)) == datetime(2026, 5, 5, 2, 30, tzinfo=UTC)
    assert publication(date(2026, 12, 8)) == datetime(2026, 12, 8, 3, 30, tzinfo=UTC)
    assert last_publication(datetime(2026, 5, 10, 12, tzinfo=UTC)) == publication(date(2026, 5, 8))
    assert last_publication(datetime(2026, 5, 11, 2, 30, tzinfo=UTC)) == publication(
        date(2026, 5, 11)
    )
