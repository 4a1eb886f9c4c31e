"""Syncs of the web app, each a process of its own, against the fake arXiv server."""

from __future__ import annotations

import json
import os
import signal
import threading
from dataclasses import asdict, replace
from datetime import UTC, date, datetime, timedelta

import pytest

from etude.app.papers.opening import index_folder, open_library
from etude.app.papers.syncing import (
    Syncer,
    SyncState,
    is_automatic,
    next_sync,
    set_automatic,
    state_file,
    sync_stamp,
    sync_state,
)
from etude.core.lock import FileLock
from etude.papers.calendar import feed_day, last_feed
from etude.papers.fake_arxiv import ReplayServer, generated
from etude.papers.search import Index

pytestmark = pytest.mark.integration

SATURDAY = datetime(2026, 5, 9, 12, tzinfo=UTC)
DEAD = SyncState(pid=2**22 - 1, started=1.0, began=SATURDAY.timestamp())


@pytest.fixture
def library(tmp_path, monkeypatch):
    monkeypatch.setenv("ETUDE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ETUDE_DATABASE", "")
    # Nothing listens there, unless a test starts the fake server.
    monkeypatch.setenv("ETUDE_ARXIV", "http://127.0.0.1:9")
    library = open_library()
    yield library
    library.engine.dispose()


@pytest.fixture
def syncer(library):
    syncer = Syncer(library)
    yield syncer
    syncer.close()


@pytest.fixture
def arxiv(monkeypatch):
    """The fake server, with papers of the last days by this machine's clock."""
    last = last_feed(feed_day(datetime.now(UTC)))
    with ReplayServer(generated(60, first=last - timedelta(days=4), days=5)) as server:
        monkeypatch.setenv("ETUDE_ARXIV", server.address)
        yield server


def write(state):
    state_file().parent.mkdir(parents=True, exist_ok=True)
    state_file().write_text(json.dumps(asdict(state)))


def test_a_sync_stores_indexes_and_summarises_in_another_process(library, syncer, arxiv):
    before = sync_stamp()
    assert syncer.start()
    syncer.wait()
    state = sync_state()
    assert state.condition == "done"
    assert state.problem == ""
    assert state.pid != os.getpid()
    assert library.count() == state.added > 0
    assert Index(index_folder()).revision() == library.revision()
    assert all(row["summary_by"] for row in library.newest())
    assert sync_stamp() != before


def test_a_sync_without_a_network_fails_calmly_and_has_its_next_try_in_an_hour(
    library, syncer, tmp_path
):
    (tmp_path / "home" / "papers.yaml").write_text("tries: 1\n")
    assert syncer.start()
    syncer.wait()
    state = sync_state()
    assert state.condition == "failed"
    assert "rss" in state.problem
    ended = datetime.fromtimestamp(state.ended, UTC)
    assert syncer.due() == ended + timedelta(hours=1)
    assert not syncer.look()


def test_settings_that_cannot_be_used_are_the_reason(library, syncer, tmp_path):
    (tmp_path / "home" / "papers.yaml").write_text("categories: [cs.XX]\n")
    syncer.start()
    syncer.wait()
    assert "cs.XX" in sync_state().problem
    assert syncer.due() > datetime.now(UTC)


def test_only_one_sync_runs_at_a_time(library, syncer, tmp_path):
    folder = tmp_path / "home"
    with FileLock(folder / "papers-web-sync.lock"):
        # Another process syncs: this one leaves, and does not touch the other's state.
        write(replace(DEAD, step="the other's"))
        assert syncer.start()
        syncer.wait()
        assert sync_state().step == "the other's"


def test_while_one_runs_no_other_is_started(library, syncer):
    import psutil

    me = psutil.Process()
    write(replace(DEAD, pid=me.pid, started=me.create_time()))
    assert sync_state().condition == "running"
    assert not syncer.start()
    assert not syncer.look()


def test_a_killed_sync_is_interrupted_and_is_tried_again(library, syncer, arxiv):
    syncer.start()
    process = syncer._process
    os.killpg(process.pid, signal.SIGKILL)
    syncer.wait()
    state = sync_state()
    assert state is None or state.condition == "interrupted"
    write(DEAD)
    assert sync_state().condition == "interrupted"
    assert next_sync(library, SATURDAY, SATURDAY) == SATURDAY + timedelta(hours=1)


def test_a_new_installation_waits_for_the_next_announcement(library, syncer):
    due = next_sync(library, SATURDAY, SATURDAY)
    assert feed_day(due) == date(2026, 5, 11)
    assert due > SATURDAY


def test_what_was_announced_since_the_last_sync_is_due_at_once(library):
    thursday = SATURDAY - timedelta(days=2)
    library.set_mark("sync:run", {"ended": thursday.timestamp(), "failed": False})
    assert next_sync(library, SATURDAY, SATURDAY) < SATURDAY
    # A clock that was set back does not put it off until then.
    library.set_mark("sync:run", {"ended": (SATURDAY + 900 * timedelta(days=1)).timestamp()})
    assert next_sync(library, SATURDAY, SATURDAY) < SATURDAY + timedelta(days=4)


def test_by_itself_a_sync_starts_when_it_is_due_unless_it_is_switched_off(library, arxiv):
    past = (datetime.now(UTC) - timedelta(days=8)).timestamp()
    library.set_mark("sync:run", {"ended": past, "failed": False})
    syncer = Syncer(library)
    set_automatic(library, False)
    assert not is_automatic(library)
    assert not syncer.look()
    set_automatic(library, True)
    assert syncer.look()
    syncer.wait()
    assert library.count() > 0
    assert not syncer.look()
    syncer.close()


def test_papers_that_another_program_brought_are_indexed(library, syncer):
    from etude.papers.record import Sighting

    library.put([Sighting("2604.00001", "A title", "An abstract.", ("Ada",), ("cs.CV",))])
    assert syncer.look()
    syncer.wait()
    assert sync_state().fetching is False
    assert Index(index_folder()).revision() == library.revision()
    assert not syncer.look()


def test_the_thread_looks_and_ends(library, arxiv):
    library.set_mark("sync:run", {"ended": 1.0, "failed": False})
    started = threading.Event()

    class Watched(Syncer):
        def start(self, *, fetch=True):
            found = super().start(fetch=fetch)
            started.set()
            return found

    syncer = Watched(library)
    syncer.keep()
    assert started.wait(60)
    syncer.close()
    syncer._thread.join(60)
    assert not syncer._thread.is_alive()


def test_a_damaged_state_is_none(library):
    state_file().parent.mkdir(parents=True, exist_ok=True)
    for text in ("{", "[]", '{"pid": 1}', ""):
        state_file().write_text(text)
        assert sync_state() is None
