"""The server of feeds, asked by real clients: httpx, plain sockets and Chromium."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from dataclasses import replace
from datetime import UTC, date, datetime
from email.utils import parsedate_to_datetime

import feedparser
import httpx
import pytest

from etude.core.errors import PapersError
from etude.papers.library import Library
from etude.papers.reader import Reader
from etude.papers.record import Announcement, Sighting
from etude.papers.search import Index
from etude.papers.serve import MOST_AT_ONCE, FeedServer
from etude.papers.settings import Settings
from etude.store.engine import open_store

EVIL = '<img src=x onerror="window.hacked=1">'


def sighting(number, category="cs.CV", title="A paper", day=4):
    return Sighting(
        f"2403.{number:05}",
        f"{title} {number}",
        "An abstract.",
        ("Ada Lovelace",),
        (category,),
        version=1,
        published=datetime(2024, 3, day - 1, 12, tzinfo=UTC),
        announced=date(2024, 3, day),
        announcement=Announcement.NEW,
    )


@pytest.fixture
def room(tmp_path):
    """A library with two shelves' papers, its index, and a reader with a tag and a search."""
    library = Library(open_store(f"sqlite:///{tmp_path / 'a.sqlite3'}"))
    library.put([sighting(number, day=4 + number % 3) for number in range(1, 11)])
    library.put([sighting(20, "cs.CL", "A YOLO paper"), sighting(21, "hep-th", "Strings")])
    index = Index(tmp_path / "index", library)
    index.refresh()
    reader = Reader(library.engine, "ada")
    reader.tag("2403.00003", EVIL)
    reader.tag("2403.00005", "a/b c")
    reader.save_search("yolo & co", "yolo")
    return library, index, Settings(), reader


@pytest.fixture
def server(room):
    times = [1_800_000_000.0]
    with FeedServer(*room, port=0, clock=lambda: times[0]) as running:
        running.times = times
        yield running


def ids(content):
    parsed = feedparser.parse(content)
    assert not parsed.bozo
    return [entry.id.rpartition(":")[2] for entry in parsed.entries]


def test_each_shelf_has_its_papers_newest_first_in_three_formats(server):
    atom = httpx.get(f"{server.address}/vision.atom")
    assert atom.headers["content-type"] == "application/atom+xml; charset=utf-8"
    found = ids(atom.content)
    assert found[:3] == ["2403.00008", "2403.00005", "2403.00002"]
    assert len(found) == 10
    assert ids(httpx.get(f"{server.address}/vision.rss").content) == found
    document = httpx.get(f"{server.address}/vision.json").json()
    assert [item["id"].rpartition(":")[2] for item in document["items"]] == found
    assert document["feed_url"] == f"{server.address}/vision.json"
    assert ids(httpx.get(f"{server.address}/language.rss").content) == ["2403.00020"]
    assert len(ids(httpx.get(f"{server.address}/all.rss").content)) == 12


def test_tags_and_searches_have_feeds_whatever_their_names_are(server):
    assert ids(httpx.get(f"{server.address}/tags/a%2Fb%20c.rss").content) == ["2403.00005"]
    assert ids(httpx.get(f"{server.address}/searches/yolo%20%26%20co.atom").content) == [
        "2403.00020"
    ]
    assert httpx.get(f"{server.address}/tags/a/b%20c.rss").status_code == 404


def test_a_reader_that_has_seen_a_feed_gets_304_until_it_changes(server, room):
    address = f"{server.address}/vision.rss"
    first = httpx.get(address)
    tag, moment = first.headers["etag"], first.headers["last-modified"]
    assert parsedate_to_datetime(moment).tzinfo is not None
    again = httpx.get(address, headers={"If-None-Match": f'"other", {tag}'})
    assert (again.status_code, again.content) == (304, b"")
    assert httpx.get(address, headers={"If-Modified-Since": moment}).status_code == 304
    # A tag goes before a date.
    both = {"If-None-Match": '"other"', "If-Modified-Since": moment}
    assert httpx.get(address, headers=both).status_code == 200
    server.times[0] += 3600
    assert httpx.get(address, headers={"If-None-Match": tag}).status_code == 304
    room[0].put([sighting(30, day=9)])
    server.times[0] += 3600
    changed = httpx.get(address, headers={"If-None-Match": tag})
    assert (changed.status_code, ids(changed.content)[0]) == (200, "2403.00030")
    since = httpx.get(address, headers={"If-Modified-Since": moment})
    assert since.status_code == 200
    assert httpx.get(address, headers={"If-Modified-Since": "yesterday"}).status_code == 200


def test_gzip_is_sent_to_those_who_take_it_and_head_has_no_body(server):
    address = f"{server.address}/vision.atom"
    plain = httpx.get(address, headers={"Accept-Encoding": "identity"})
    packed = httpx.get(address, headers={"Accept-Encoding": "gzip"})
    assert packed.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert packed.content == plain.content
    assert int(packed.headers["content-length"]) < int(plain.headers["content-length"])
    assert plain.headers["etag"] != packed.headers["etag"]
    head = httpx.head(address, headers={"Accept-Encoding": "identity"})
    assert head.content == b""
    assert head.headers["content-length"] == plain.headers["content-length"]


def _raw(server, request):
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=20) as connection:
        connection.sendall(request)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    return answer


@pytest.mark.parametrize(
    "path",
    [
        "/../../../../etc/passwd",
        "/..%2f..%2f..%2fetc%2fpasswd.rss",
        "/%2e%2e/%2e%2e/etc/passwd.json",
        "/vision.rss/../../etc/passwd",
        "//etc/passwd.atom",
        "/.rss",
        "/vision",
        "/vision.xml",
        "/tags/.rss",
        "/tags/%ff%fe.rss",
        "/searches/nothing.rss",
        "/for-you/x.rss",
        "/" + "a" * 5000 + ".rss",
    ],
)
def test_no_path_leads_anywhere_but_to_a_feed(server, path):
    answer = _raw(server, f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 404 ")
    assert body == b"404 no such feed; / lists all feeds\n"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"POST /vision.rss HTTP/1.1\r\nHost: localhost\r\n\r\n", b"501"),
        (b"DELETE / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"501"),
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET /vision.rss HTTP/1.1\r\nHost: evil.example\r\n\r\n", b"403"),
        (b"GET /vision.rss HTTP/1.1\r\n\r\n", b"403"),
        (b"GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", b"200"),
        (b"GET / HTTP/1.1\r\nHost: 127.0.0.1.evil.example\r\n\r\n", b"403"),
    ],
)
def test_it_only_reads_and_only_for_names_of_this_machine(server, request_, status):
    answer = _raw(server, request_)
    assert status in answer.split(b"\r\n")[0] + answer[:80]
    if status != b"200":
        assert answer.count(b"\n", answer.find(b"\r\n\r\n") + 4) == 1


def test_many_at_once_are_bounded_and_sleepers_block_nobody_for_long(server):
    sleepers = [
        socket.create_connection(("127.0.0.1", server.server_port)) for _ in range(MOST_AT_ONCE)
    ]
    try:
        # The sleepers have taken all places once the server has accepted them.
        for _ in range(200):
            answer = _raw(server, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            if answer.startswith(b"HTTP/1.1 503 "):
                break
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"Retry-After" in answer
    finally:
        for sleeper in sleepers:
            sleeper.close()
    for _ in range(200):
        answer = _raw(server, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        if answer.startswith(b"HTTP/1.1 200 "):
            break
    assert answer.startswith(b"HTTP/1.1 200 ")


def test_readers_that_ask_together_all_get_the_feed(server):
    found = []

    def ask():
        found.append(httpx.get(f"{server.address}/vision.rss", timeout=30).status_code)

    threads = [threading.Thread(target=ask) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [200] * 10


def test_newest_is_the_same_on_every_database(address):
    library = Library(open_store(address))
    library.put([sighting(number, day=4 + number % 3) for number in range(1, 11)])
    library.put([sighting(20, "cs.CL")])
    library.put([replace(sighting(1), version=2, announced=date(2024, 3, 20))])
    found = [row["id"][-2:] for row in library.newest(["cs.CV"], most=4)]
    assert found == ["08", "05", "02", "10"]
    assert len(library.newest(most=100)) == 11
    assert library.newest(["hep-th"]) == []


def test_for_you_is_in_the_order_of_what_the_reader_likes(room):
    library, index, settings, reader = room
    words = ["boxes detector anchors", "poems rhyme metre", "boxes detector grids", "poems verse"]
    library.put(
        [
            replace(sighting(40 + n, title=title, day=8), abstract=f"About {title} again.")
            for n, title in enumerate(words * 3)
        ]
    )
    for n in (0, 2, 4):
        reader.like(f"2403.{40 + n:05}")
    for n in (1, 3):
        reader.dislike(f"2403.{40 + n:05}")
    with FeedServer(library, index, settings, reader, port=0) as running:
        found = ids(httpx.get(f"{running.address}/for-you.rss", timeout=60).content)
    places = {key: place for place, key in enumerate(found)}
    boxes = [places[f"2403.{40 + n:05}"] for n in (6, 8, 10) if f"2403.{40 + n:05}" in places]
    poems = [places.get(f"2403.{40 + n:05}", len(found)) for n in (5, 7, 9, 11)]
    assert boxes
    assert sum(boxes) / len(boxes) < sum(poems) / len(poems)


def test_a_port_that_is_taken_is_one_line(server, room):
    with pytest.raises(PapersError, match=r"cannot listen on 127.0.0.1, port \d+: .*--port"):
        FeedServer(*room, port=server.server_port)


def test_without_a_reader_there_are_shelves_only(room):
    library, index, settings, _ = room
    with FeedServer(library, index, settings, None, port=0) as running:
        assert httpx.get(f"{running.address}/vision.rss").status_code == 200
        assert httpx.get(f"{running.address}/for-you.rss").status_code == 404
        assert httpx.get(f"{running.address}/tags/a.rss").status_code == 404


def test_ctrl_c_ends_it_cleanly(tmp_path):
    program = textwrap.dedent(
        """
        import signal, sys
        # Tests that run in a shell's background have inherited that it is ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        from etude.papers.library import Library
        from etude.papers.serve import serve
        from etude.papers.settings import Settings
        from etude.store.engine import open_store
        library = Library(open_store("sqlite:///" + sys.argv[1]))
        serve(library, None, Settings(), None, port=0, show=lambda line: print(line, flush=True))
        print("ended", flush=True)
        """
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "a.sqlite3")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "ETUDE_HOME": str(tmp_path)},
    )
    address = process.stdout.readline().split()[2].rstrip(",/")
    assert httpx.get(f"{address}/all.json", timeout=60).json()["items"] == []
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    assert out.endswith("ended\n")
    assert errors == ""


def test_the_page_lists_every_feed_and_its_links_work(server, browser):
    page = browser.new_page()
    page.goto(f"{server.address}/")
    rows = page.locator("tr").all_inner_texts()
    assert [row.split("\t")[0] for row in rows] == [
        "all papers", "vision", "language", "learning", "for you",
        f"tagged {EVIL}", "tagged a/b c", "search yolo & co",
    ]  # fmt: skip
    addresses = page.eval_on_selector_all("a", "links => links.map(link => link.href)")
    assert len(addresses) == 24
    assert page.evaluate("window.hacked") is None
    for address in addresses:
        if "for-you" not in address:
            assert httpx.get(address).status_code == 200, address
    page.set_viewport_size({"width": 320, "height": 640})
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    page.close()
