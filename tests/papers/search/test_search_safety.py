"""The index's folder under kills, damage, two writers and readers beside a writer."""

from __future__ import annotations

import fcntl
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from etude.core.errors import PapersError
from etude.papers.library import Library
from etude.papers.search import Index
from etude.papers.search import folder as place
from etude.papers.search.background_indexer import BackgroundIndexer
from etude.store.engine import open_store

pytestmark = pytest.mark.integration

REFRESH = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from etude.papers.library import Library
    from etude.papers.search import Index, index
    from etude.store.engine import open_store

    index.BATCH = 100
    library = Library(open_store(sys.argv[1]))
    # Pages as small as the batches, so that there are many places to be killed at.
    since = library.since
    library.since = lambda revision: since(revision, page=50)
    print(Index(Path(sys.argv[2]), library).refresh(lambda p: print(p.text, p.done, flush=True)))
    """
)


def refresh(library, folder):
    command = [sys.executable, "-c", REFRESH, library.engine.url.render_as_string(), str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def content(index):
    """Every term of every field with its frequency, and all papers in order."""
    _, searcher, _ = index._snapshot()
    fields = ("id", "title", "abstract", "author", "cat", "word")
    terms = {field: sorted(searcher.terms_with_prefix(field, "")) for field in fields}
    # Frequencies count what was deleted until its segment is merged.
    present = {field: [term for term, _ in found] for field, found in terms.items()}
    queries = ("yolo OR detection", '"large language model"', "cat:cs.CL -image", "title:model*")
    return (
        present["id"],
        index.search("", most=5000).ids,
        [index.search(query, most=5000).ids for query in queries],
        index.revision(),
    )


@pytest.fixture(scope="module")
def library(corpus, make_library):
    """1,500 papers in three revisions."""
    return make_library(corpus[::40][:1500], batch=500)


@pytest.fixture(scope="module")
def undisturbed(library, tmp_path_factory):
    index = Index(tmp_path_factory.mktemp("undisturbed") / "papers", library)
    index.refresh()
    return content(index)


def test_killed_again_and_again_it_ends_in_the_same_index(library, undisturbed, tmp_path):
    chosen = random.Random(4)
    kills = 0
    while True:
        process = refresh(library, tmp_path / "papers")
        for _ in range(chosen.randrange(1, 9)):
            line = process.stdout.readline()
        if not line.startswith("Indexing"):
            break
        time.sleep(chosen.random() * 0.03)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills += process.returncode == -signal.SIGKILL
        if kills > 12:
            break
    assert kills > 3
    index = Index(tmp_path / "papers", library)
    index.refresh()
    assert content(index) == undisturbed
    assert index.refresh() == 0


def test_a_second_writer_says_that_it_waits_and_then_goes_on(library, undisturbed, tmp_path):
    folder = tmp_path / "papers"
    folder.mkdir()
    with (folder / "lock").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        waiting = refresh(library, folder)
        assert waiting.stdout.readline().startswith("Waiting for another process")
    out, _ = waiting.communicate(timeout=300)
    assert out.splitlines()[-1] == "1500"
    assert content(Index(folder, library)) == undisturbed


def test_two_writers_at_once_end_in_the_same_index(library, undisturbed, tmp_path):
    both = [refresh(library, tmp_path / "papers") for _ in range(2)]
    counts = sorted(int(one.communicate(timeout=300)[0].splitlines()[-1]) for one in both)
    assert counts == [0, 1500]
    assert content(Index(tmp_path / "papers", library)) == undisturbed


def test_readers_beside_a_writer_see_whole_commits_only(library, tmp_path):
    writer = refresh(library, tmp_path / "papers")
    reader = Index(tmp_path / "papers")
    seen: list[int] = []
    failures: list[BaseException] = []

    def read():
        try:
            while writer.poll() is None or seen[-1] < 1500:
                found = reader.search("", most=3000)
                assert len(found.ids) == found.total
                seen.append(found.total)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    writer.communicate(timeout=300)
    for thread in threads:
        thread.join(300)
    assert failures == []
    assert set(seen) <= set(range(0, 1501, 100))
    assert seen[-1] == 1500


def _shortened(folder, kind):
    file = max(folder.glob(f"index/*.{kind}"), key=lambda one: one.stat().st_size)
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])


def _flipped(folder, kind):
    file = max(folder.glob(f"index/*.{kind}"), key=lambda one: one.stat().st_size)
    data = bytearray(file.read_bytes())
    data[len(data) // 3] ^= 0x10
    file.write_bytes(data)


DAMAGE = {
    "a dictionary cut short": lambda folder: _shortened(folder, "term"),
    "postings cut short": lambda folder: _shortened(folder, "idx"),
    "a flipped bit in postings": lambda folder: _flipped(folder, "idx"),
    "a flipped bit in positions": lambda folder: _flipped(folder, "pos"),
    "a flipped bit in ids": lambda folder: _flipped(folder, "store"),
    "no list of files": lambda folder: (folder / "index" / "meta.json").unlink(),
    "a list of files that is none": lambda folder: (folder / "index" / "meta.json").write_text("{"),
    "an empty list of files": lambda folder: (folder / "index" / "meta.json").write_text(""),
    "a file gone": lambda folder: next(folder.glob("index/*.term")).unlink(),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_index_is_rebuilt_with_one_line(library, undisturbed, tmp_path, damage):
    folder = tmp_path / "papers"
    index = Index(folder, library)
    index.refresh()
    DAMAGE[damage](folder)
    try:
        Index(folder).search('"object detection" OR yolo')
    except PapersError as error:
        assert len(str(error).splitlines()) == 1
        assert "rebuilds it" in str(error)
    told: list[str] = []
    again = Index(folder, library)
    assert again.refresh(lambda progress: told.append(progress.text)) == 1500
    rebuilt = [line for line in told if "Rebuilding" in line]
    assert len(rebuilt) == 1
    assert len(rebuilt[0].splitlines()) == 1
    assert content(again) == undisturbed


def test_an_index_of_another_format_is_rebuilt(library, undisturbed, tmp_path, monkeypatch):
    folder = tmp_path / "papers"
    with monkeypatch.context() as older:
        older.setattr("etude.papers.search.index.FORMAT", 0)
        Index(folder, library).refresh()
    with pytest.raises(PapersError, match="format 0"):
        Index(folder).search("yolo")
    told: list[str] = []
    index = Index(folder, library)
    assert index.refresh(lambda progress: told.append(progress.text)) == 1500
    assert any("format 0" in line for line in told)
    assert content(index) == undisturbed


def test_the_index_of_another_database_is_rebuilt(library, tmp_path, corpus, make_library):
    folder = tmp_path / "papers"
    other = make_library(corpus[:30])
    Index(folder, other).refresh()
    told: list[str] = []
    index = Index(folder, library)
    index.refresh(lambda progress: told.append(progress.text))
    assert any("another database" in line for line in told)
    assert index.count() == 1500


def test_a_database_put_back_to_an_older_state_is_noticed(tmp_path, corpus, make_library):
    library = make_library(corpus[:20], batch=10)
    file = library.engine.url.database
    Index(tmp_path / "papers", library).refresh()
    library.engine.dispose()
    # As a copy made after the first batch would be.
    with library.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM papers WHERE revision = 2")
        connection.exec_driver_sql("UPDATE papers_marks SET value = '1' WHERE key = 'revision'")
    told: list[str] = []
    again = Library(open_store(f"sqlite:///{file}"))
    index = Index(tmp_path / "papers", again)
    assert index.refresh(lambda progress: told.append(progress.text)) == 10
    assert any("ahead of the database" in line for line in told)
    assert index.count() == 10


def test_a_folder_that_cannot_be_written_is_told_in_one_line(library, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PapersError, match="cannot write the index") as caught:
        Index(tmp_path / "file" / "papers", library).refresh()
    assert len(str(caught.value).splitlines()) == 1


def test_what_a_kill_left_beside_the_index_does_no_harm(library, undisturbed, tmp_path):
    folder = tmp_path / "papers"
    place.create(folder_made(folder))
    (folder / ".removed-index").mkdir()
    (folder / "index" / "0123456789abcdef0123456789abcdef.idx.tmp").write_bytes(b"junk")
    index = Index(folder, library)
    index.refresh()
    assert content(index) == undisturbed


def folder_made(folder):
    folder.mkdir(parents=True)
    return folder


def test_the_index_follows_while_papers_come(corpus, make_library, sighting, undisturbed, tmp_path):
    rows = corpus[::40][:1500]
    library, reader = make_library([]), Index(tmp_path / "papers")
    seen = []
    with BackgroundIndexer(tmp_path / "papers", library, enough=400) as along:
        for stored in range(250, 1501, 250):
            library.put([sighting(row) for row in rows[stored - 250 : stored]])
            along.came(stored)
            if stored == 1000:
                process = along._process
                address = library.engine.url.database.encode()
                assert address not in Path(f"/proc/{process.pid}/cmdline").read_bytes()
                limit = time.monotonic() + 60
                while not reader.count() and time.monotonic() < limit:
                    time.sleep(0.02)
                seen.append(reader.count())
    # Before the end some were there; after it all but those that were not worth a commit.
    assert 0 < seen[0] <= 1000
    assert process.returncode == 0
    indexed = reader.count()
    assert indexed >= 1000
    index = Index(tmp_path / "papers", library)
    assert index.refresh() == 1500 - indexed
    assert content(index)[:3] == undisturbed[:3]


def test_few_papers_start_no_process(corpus, make_library, tmp_path):
    library = make_library(corpus[:10])
    with BackgroundIndexer(tmp_path / "papers", library) as along:
        along.came(10)
        assert along._process is None
    assert not (tmp_path / "papers").exists()


def test_where_the_follower_is_killed_the_last_refresh_does_all(
    corpus, make_library, sighting, undisturbed, tmp_path
):
    library = make_library([])
    with BackgroundIndexer(tmp_path / "papers", library, enough=1) as along:
        for start in range(0, 1500, 500):
            rows = corpus[::40][start : start + 500]
            library.put([sighting(row) for row in rows])
            along.came(start + 500)
            along._process.kill()
            along._process.wait()
    index = Index(tmp_path / "papers", library)
    index.refresh()
    assert content(index) == undisturbed
