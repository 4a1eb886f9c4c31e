"""Sync against a replay: days that go well, days that are empty, and sources that go wrong."""

import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from etude.core.errors import PapersError
from etude.papers.fake_arxiv import ReplayServer, World, generated
from etude.papers.fake_arxiv.oai import Pages
from etude.papers.fake_arxiv.world import Event, FakePaper, Version, recorded, submitted_for
from etude.papers.health import health
from etude.papers.library import Library
from etude.papers.record import Announcement
from etude.papers.settings import Settings
from etude.papers.sync import backfill, sync
from etude.store.engine import open_store

MONDAY = datetime(2026, 5, 4, 12, tzinfo=UTC)
DAY = timedelta(days=1)


class Bench:
    """A library, a replay and the way from one to the other."""

    def __init__(self, server, library, folder):
        self.server, self.library, self.folder = server, library, folder
        self.settings = Settings().at(server.address, timeout=5)

    def sync(self, now=None, **options):
        if now is not None:
            self.server.now = now
        clock = options.pop("clock", self.clock)
        settings = options.pop("settings", self.settings)
        return sync(self.library, settings, clock=clock, folder=self.folder, **options)

    def clock(self):
        return self.server.now.timestamp()

    def health(self):
        return health(self.library, self.settings, self.server.now, folder=self.folder)

    def asked(self, text):
        return sum(text in found.path for found in self.server.log)


def everything(library):
    """All that is known of the papers but when and in which order it came."""
    rows = {}
    for page in library.since(0):
        for row in page:
            kept = dict(library.get(row["id"]))
            for name in ("first_seen", "revision"):
                del kept[name]
            rows[row["id"]] = kept
    return rows


@pytest.fixture(scope="module")
def world():
    return generated(120)


@pytest.fixture
def bench(world, papers, tmp_path):
    with ReplayServer(world, now=MONDAY, pages=Pages(records=25)) as server:
        yield Bench(server, papers, tmp_path)


def test_a_week_of_syncs_holds_every_paper_on_the_days_it_was_announced(bench, world):
    for number in range(9):
        report = bench.sync(MONDAY + number * DAY)
        assert not report.failed
    rows = everything(bench.library)
    assert rows.keys() == world.papers.keys()
    for key, paper in world.papers.items():
        last = [event for event in paper.events if event.day <= date(2026, 5, 12)][-1]
        row = rows[key]
        assert row["version"] == last.version.number
        assert row["title"] == last.version.title
        assert row["authors"] == list(last.version.authors)
        assert set(row["categories"]) == set(last.categories)
        assert row["categories"][0] == last.categories[0]
        assert row["doi"] == last.doi
        assert row["withdrawn"] == (last.version.source == "I")
        assert row["announced"] == paper.events[0].day.isoformat()
        told = {
            (event.day.isoformat(), event.kind.value)
            for event in paper.events
            if event.kind is not None and event.day <= date(2026, 5, 12)
        }
        assert set(row["listings"]) == told
        replaced = [day for day, kind in told if kind == "replace"]
        assert row["replaced"] == max(replaced, default=None)


def test_a_second_sync_asks_for_five_feeds_only_and_changes_nothing(bench):
    first = bench.sync()
    assert first.added == 24
    before = everything(bench.library)
    bench.server.log.clear()
    again = bench.sync()
    assert (again.added, again.changed) == (0, 0)
    assert [asked.status for asked in bench.server.log] == [304] * 5
    assert everything(bench.library) == before
    assert again.why_empty is None


def test_a_full_sync_reads_all_again_and_changes_nothing(bench):
    bench.sync()
    before, revision = everything(bench.library), bench.library.revision()
    report = bench.sync(full=True)
    assert report.same == 24
    assert everything(bench.library) == before
    assert bench.library.changed_since(revision) == 0


def test_report_counts_papers_not_sightings(bench):
    bench.sync()
    report = bench.sync(MONDAY + DAY)
    assert report.added == 24
    assert report.listed == len(bench.library.day("2026-05-05"))
    assert f"{report.added} new" in report.lines()[0]


# Empty days.


def test_an_empty_weekend_says_so_and_names_the_next_day(bench):
    report = bench.sync(datetime(2026, 5, 9, 12, tzinfo=UTC))
    assert "weekend" in report.why_empty
    assert "Monday, 11 May" in report.why_empty
    assert not report.failed


def test_a_holiday_is_named(bench):
    report = bench.sync(datetime(2026, 7, 3, 15, tzinfo=UTC))
    assert "Independence Day" in report.why_empty
    assert "Monday, 06 July" in report.why_empty


def test_a_day_that_is_not_announced_yet_says_so(bench):
    for name in ("cs.CV", "cs.CL", "cs.LG", "stat.ML", "cs.AI"):
        bench.server.spoil(f"rss:empty={name}")
    report = bench.sync()
    assert "not announced yet" in report.why_empty
    assert report.added == 24  # OAI-PMH had them already
    report = bench.sync()
    assert report.why_empty is None
    assert report.listed == 24


def test_a_day_on_which_nothing_matched_says_so(bench):
    report = bench.sync(datetime(2026, 6, 3, 15, tzinfo=UTC))
    assert "nothing was announced in cs.CV" in report.why_empty


def test_a_source_that_is_down_is_told_and_nothing_is_lost(bench):
    bench.server.spoil("any:503x*")
    report = bench.sync()
    assert report.failed
    assert "could not be read" in report.why_empty
    assert "HTTP 503" in report.why_empty
    state = bench.health()
    assert not state.well
    assert state.last_success is None
    assert any("HTTP 503" in line for line in state.lines())
    bench.server.faults.clear()
    assert bench.sync().added == 24
    assert bench.health().well


def test_an_answer_that_comes_in_drops_is_given_up_and_asked_for_again(bench):
    bench.settings = replace(bench.settings, timeout=1)
    bench.server.spoil("oai:slow=0.3")
    report = bench.sync()
    assert not report.failed
    assert report.added == 24
    assert bench.library.mark("sync:run")["requests"] == 5 + 6


def test_a_source_that_is_down_is_not_asked_for_every_category(bench):
    bench.server.spoil("rss:503x*", "oai:503x*", "query:503x*")
    report = bench.sync()
    assert len(bench.server.log) == 3 * bench.settings.tries
    assert len(report.sources) == 3
    assert all(len(line) < 200 for line in report.lines())


def test_one_category_that_is_refused_does_not_hold_up_the_others(bench):
    bench.server.spoil("rss:error", "oai:error")
    report = bench.sync()
    assert report.failed
    assert any("cs.CV: OAI-PMH reports badArgument" in line for line in report.lines())
    assert bench.library.count() > 10


# The feeds.


def test_a_stale_batch_under_todays_date_is_not_listed_today(bench, world):
    bench.sync()
    bench.server.spoil("rss:stale=cs.AIx1")
    report = bench.sync(MONDAY + DAY)
    assert any("cs.AI still shows 2026-05-04" in line for line in report.lines())
    clean = {
        state.paper.id
        for name in ("cs.CV", "cs.CL", "cs.LG", "stat.ML")
        for state, _ in world.announced(date(2026, 5, 5), [name])
    }
    assert {row["id"] for row in bench.library.day("2026-05-05")} == clean
    report = bench.sync()
    whole = {
        state.paper.id for state, _ in world.announced(date(2026, 5, 5), bench.settings.categories)
    }
    assert {row["id"] for row in bench.library.day("2026-05-05")} == whole > clean


def test_a_stale_batch_that_was_missed_gets_its_own_day(bench, world):
    """The first sync of all, and the feeds show the day before under today's date."""
    for name in bench.settings.categories:
        bench.server.spoil(f"rss:stale={name}")
    bench.sync(MONDAY + DAY)
    assert {row["id"] for row in bench.library.day("2026-05-04")} == {
        state.paper.id for state, _ in world.announced(date(2026, 5, 4), bench.settings.categories)
    }
    assert bench.library.day("2026-05-05") == []


def test_a_feed_dated_a_day_back_is_listed_on_its_true_day(bench):
    bench.server.spoil("rss:lagx*")
    bench.sync()
    assert len(bench.library.day("2026-05-04")) == 24
    assert bench.library.day("2026-05-03") == []


def test_without_oai_the_query_api_tells_the_day_of_a_batch(bench):
    bench.sync()
    bench.server.spoil("oai:500x*", "rss:stale=cs.AI")
    report = bench.sync(MONDAY + DAY)
    assert report.failed
    assert "cs.AI" not in {
        category
        for row in bench.library.day("2026-05-05")
        for category in row["categories"]
        if len(row["categories"]) == 1
    }
    assert len(bench.library.day("2026-05-05")) > 10


def test_with_feeds_alone_papers_are_kept_and_listed_once_their_day_is_known(bench):
    bench.server.spoil("oai:500x*", "query:500x*")
    report = bench.sync()
    assert bench.library.count() == 24
    assert report.listed == 0
    assert any("is not yet known" in line for line in report.lines())
    bench.server.faults.clear()
    report = bench.sync()
    assert (report.added, report.listed) == (0, 24)


def test_papers_that_no_feed_carried_are_listed_on_their_day_once_it_is_over(bench, world):
    bench.server.cap = 2
    bench.sync()
    assert len(bench.library.day("2026-05-04")) < 24
    assert bench.library.count() == 24
    bench.server.cap = 2000
    report = bench.sync(MONDAY + DAY)
    assert any("that no feed listed" in line for line in report.lines())
    # Those that changed since wait until the feeds of their change are gone.
    bench.sync(MONDAY + 2 * DAY)
    bench.sync(MONDAY + 3 * DAY)
    assert len(bench.library.day("2026-05-04")) == 24
    assert {row["kind"] for row in bench.library.day("2026-05-04")} == {"new"}


def test_days_without_any_sync_lose_no_paper(bench, world):
    bench.sync()
    bench.sync(MONDAY + 4 * DAY)
    bench.sync(MONDAY + 7 * DAY)
    rows = everything(bench.library)
    assert rows.keys() == world.papers.keys()
    for key, paper in world.papers.items():
        assert rows[key]["announced"] == paper.events[0].day.isoformat()


def test_a_replacement_of_an_unknown_paper_is_kept_with_its_first_date(papers, tmp_path):
    old = Version(1, datetime(2024, 3, 5, 9, tzinfo=UTC), "T", "A", ("Ada Lovelace",))
    new = replace(old, number=4, submitted=submitted_for(date(2026, 5, 4), 0.5), abstract="B")
    world = World()
    world.add(
        FakePaper(
            "2403.00001",
            [
                Event(date(2024, 3, 6), Announcement.NEW, old, ("cs.CV",)),
                Event(date(2026, 5, 4), Announcement.REPLACE, new, ("cs.CV",)),
            ],
        )
    )
    with ReplayServer(world, now=MONDAY) as server:
        bench = Bench(server, papers, tmp_path)
        bench.sync()
        bench.sync(MONDAY + DAY)
    row = papers.get("2403.00001")
    assert (row["version"], row["abstract"], row["replaced"]) == (4, "B", "2026-05-04")
    assert row["published"] == old.submitted.timestamp()
    # It was no news on the day of its fourth version.
    assert papers.day("2026-05-04")[0]["kind"] == "replace"


# OAI-PMH.


def test_a_harvest_goes_on_where_it_stopped(bench):
    bench.server.spoil("oai:500x*")
    bench.server.faults.clear()
    seen = []

    def stop(progress):
        seen.append(progress)
        if progress.source == "oai":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bench.sync(MONDAY + 4 * DAY, show=stop)
    kept = bench.library.mark("oai:cs:cs:CV")["harvest"]
    assert kept["token"]
    assert bench.library.count() == 25
    bench.server.log.clear()
    bench.sync()
    first = next(asked.path for asked in bench.server.log if "oai" in asked.path)
    assert "resumptionToken" in first
    assert bench.library.count() == 120


def test_after_midnight_the_token_is_not_used_and_the_harvest_goes_on_by_date(bench):
    def stop(progress):
        if progress.source == "oai":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bench.sync(MONDAY + 4 * DAY, show=stop)
    bench.server.log.clear()
    bench.sync(MONDAY + 5 * DAY)
    first = next(asked.path for asked in bench.server.log if "oai" in asked.path)
    assert "resumptionToken" not in first
    assert "from=2026-05-0" in first
    assert bench.library.count() == 120


def test_tokens_that_expire_early_lead_back_to_the_day_and_on(bench):
    bench.server.spoil("oai:expiredx3")
    report = bench.sync(MONDAY + 4 * DAY)
    assert not report.failed
    assert bench.library.count() == 120


def test_tokens_that_never_hold_end_the_run_with_one_line(bench):
    bench.server.pages = Pages(records=5)
    bench.server.spoil("oai:expiredx*")
    report = bench.sync(MONDAY + 4 * DAY)
    assert report.failed
    assert any("rejects its resumption token" in line for line in report.lines())


def test_a_day_of_bulk_edits_is_read_whole(papers, tmp_path):
    world = World()
    day = date(2026, 5, 5)
    for number in range(5000):
        version = Version(
            1, submitted_for(date(2026, 5, 4), number / 5000), f"T {number}", "A", ("B C",)
        )
        first = Event(date(2026, 5, 4), Announcement.NEW, version, ("cs.CV",))
        edit = replace(first, day=day, kind=None, journal_ref="J")
        world.add(FakePaper(f"2605.{number:05}", [first, edit]))
    settings = Settings(categories=("cs.CV",), shelves={"vision": ("cs.CV",)})
    with ReplayServer(world, now=MONDAY + DAY) as server:
        bench = Bench(server, papers, tmp_path)
        bench.settings = settings.at(server.address)
        report = bench.sync()
        assert bench.asked("/oai") == 2
        # The second page starts within the day, after exactly one page.
        assert report.added == papers.count() == 5000


def test_the_next_harvest_starts_on_the_day_of_the_last_answer(bench):
    bench.sync()
    bench.server.log.clear()
    bench.sync(MONDAY + DAY)
    first = next(asked.path for asked in bench.server.log if "/oai" in asked.path)
    assert "from=2026-05-04" in first


@pytest.mark.parametrize("ahead", [timedelta(days=4000), timedelta(days=-4000)])
def test_a_clock_of_ours_that_is_wrong_by_years_does_not_hide_papers(bench, ahead):
    wrong = (bench.server.now + ahead).timestamp()
    bench.sync(clock=lambda: wrong)
    bench.sync(MONDAY + DAY)
    assert {row["id"] for row in bench.library.day("2026-05-05")}
    assert bench.library.count() == 48


def test_a_server_whose_clock_was_ahead_once_is_read_again(bench):
    bench.sync(MONDAY + timedelta(days=3000))
    bench.sync(MONDAY + 4 * DAY)
    assert bench.library.count() == 120


# Together.


def test_two_syncs_at_once_the_second_says_so_in_one_line(bench):
    def second(progress):
        with pytest.raises(PapersError, match=r"another sync is running \(process"):
            bench.sync()

    bench.sync(show=second)
    assert bench.library.count() == 24


def test_two_processes_syncing_at_once_leave_what_one_leaves(bench, world, address, tmp_path):
    code = (
        "import sys\nfrom pathlib import Path\nfrom etude.papers.library import Library\n"
        "from etude.papers.settings import Settings\nfrom etude.papers.sync import sync\n"
        "from etude.store.engine import open_store\n"
        "sync(Library(open_store(sys.argv[1])), Settings().at(sys.argv[2]),"
        f" clock=lambda: {MONDAY.timestamp()}, folder=Path(sys.argv[3]))\n"
    )
    # Folders of their own, as on two machines with one database: only the database keeps order.
    open_store(address).dispose()
    command = [sys.executable, "-c", code, address, bench.server.address]
    runs = [subprocess.Popen([*command, str(tmp_path / name)], env={**os.environ}) for name in "ab"]
    assert [run.wait(120) for run in runs] == [0, 0]
    bench.sync()
    engine = open_store(address)
    assert everything(Library(engine)) == everything(bench.library)
    engine.dispose()


def test_a_backfill_brings_older_papers_onto_their_days_once(bench, world):
    bench.server.now = MONDAY + 20 * DAY
    options = {"clock": bench.clock, "folder": bench.folder}
    span = (date(2026, 4, 28), date(2026, 5, 8))
    report = backfill(bench.library, bench.settings, *span, **options)
    assert report.added == 120
    assert report.why_empty is None
    for row in bench.library.day("2026-05-06"):
        assert world.papers[row["id"]].events[0].day == date(2026, 5, 6)
    asked = bench.asked("/api/query")
    backfill(bench.library, bench.settings, *span, **options)
    assert bench.asked("/api/query") == asked
    with pytest.raises(PapersError, match="after"):
        backfill(bench.library, bench.settings, date(2026, 5, 2), date(2026, 5, 1), **options)


def test_a_backfill_that_was_interrupted_goes_on_at_the_window_it_was_in(bench):
    bench.server.now = MONDAY + 20 * DAY
    options = {"clock": bench.clock, "folder": bench.folder}
    span = (date(2026, 4, 20), date(2026, 5, 8))
    bench.server.spoil("query:503x9")
    bench.settings = replace(bench.settings, tries=8)
    report = backfill(bench.library, bench.settings, *span, **options)
    assert report.failed
    report = backfill(bench.library, bench.settings, *span, **options)
    assert not report.failed
    assert bench.library.count() == 120


def test_a_backfill_and_a_sync_in_either_order_leave_the_same(bench, tmp_path):
    bench.server.now = MONDAY + 4 * DAY
    other = Library(open_store(f"sqlite:///{tmp_path / 'other.sqlite3'}"))
    options = {"clock": bench.clock, "folder": bench.folder}
    span = (date(2026, 4, 28), date(2026, 5, 8))
    bench.sync()
    backfill(bench.library, bench.settings, *span, **options)
    backfill(other, bench.settings, *span, **options)
    sync(other, bench.settings, **options)
    # What changed today is settled once today's feeds are gone.
    bench.sync(MONDAY + 5 * DAY)
    sync(other, bench.settings, **options)
    assert everything(other) == everything(bench.library)
    other.engine.dispose()


def test_only_this_machine_is_contacted(bench, monkeypatch):
    import socket

    hosts = []
    real = socket.socket.connect

    def connect(self, address):
        hosts.append(address[0])
        return real(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect)
    bench.sync()
    assert set(hosts) == {"127.0.0.1"}


def test_health_counts_days_that_are_missing_and_tells_of_a_cool_down(bench):
    bench.sync()
    assert bench.health().well
    bench.server.now = MONDAY + 3 * DAY
    state = bench.health()
    assert state.lag == 3
    assert "3 days of announcements missing" in state.lines()
    bench.server.spoil("rss:429=500")
    bench.settings = replace(bench.settings, patience=5)
    report = bench.sync()
    assert report.failed
    state = bench.health()
    assert 490 < state.waiting <= 500
    assert any("no requests to arXiv for another" in line for line in state.lines())
    assert {source.source: source.failures for source in state.sources}["rss"] == 1


def test_health_of_an_empty_library_has_nothing_to_complain_of(bench):
    state = bench.health()
    assert (state.papers, state.lag, state.last_run) == (0, 0, None)
    assert state.lines()


def test_real_days_are_synced_from_a_replay_of_them(shared_data, papers, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "days").symlink_to(shared_data / "papers" / "days")
    world = recorded(tmp_path / "data")
    with ReplayServer(world, now=datetime(2026, 5, 7, 12, tzinfo=UTC)) as server:
        bench = Bench(server, papers, tmp_path)
        bench.settings = replace(bench.settings, first_days=14)
        bench.sync()
        report = bench.sync(datetime(2026, 5, 8, 12, tzinfo=UTC))
        assert report.listed > 100
        wanted = set(bench.settings.categories)
        expected = {
            key: paper
            for key, paper in world.papers.items()
            if wanted & set(paper.events[-1].categories)
        }
        rows = everything(papers)
    assert rows.keys() == expected.keys()
    assert len(rows) > 1000
    for key, paper in expected.items():
        version = paper.events[-1].version
        assert rows[key]["title"] == version.title
        assert rows[key]["abstract"] == version.abstract


def test_gate_told_of_waits_reaches_the_progress(bench):
    bench.server.spoil("rss:429=1")
    told = []
    bench.sync(show=told.append)
    assert any(of.source == "gate" and "waiting 1 s" in of.text for of in told)
