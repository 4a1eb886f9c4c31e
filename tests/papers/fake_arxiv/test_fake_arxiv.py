"""The replay as a program and as a server of its own."""

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, date, datetime

import httpx
import pytest

from etude.core.errors import PapersError
from etude.papers.fake_arxiv import Fault, ReplayServer, generated, recorded


@pytest.fixture
def program():
    started = []

    def start(*arguments):
        process = subprocess.Popen(
            [sys.executable, "-m", "etude.papers.fake_arxiv", "--port", "0", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            # Programs that a script starts in the background are born deaf to Ctrl-C.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_the_program_serves_until_ctrl_c_with_clock_and_faults_on_command(program):
    process = program(
        "--generated",
        "40",
        "--first",
        "2026-05-04",
        "--now",
        "2026-05-05T12:00",
        "--faults",
        "rss:503",
    )
    assert process.stdout.readline().startswith("40 papers of 2026-05-04 to ")
    address = process.stdout.readline().partition("=")[2].partition(";")[0]
    assert httpx.get(f"{address}/rss/cs.CV").status_code == 503
    assert "<item>" in httpx.get(f"{address}/rss/cs.CV").text
    told = httpx.get(f"{address}/replay/clock", params={"now": "2026-05-09T12:00"}).json()
    assert told["now"].startswith("2026-05-09T12:00")
    assert "<item>" not in httpx.get(f"{address}/rss/cs.CV").text
    assert httpx.get(f"{address}/replay/faults", params={"add": "oai:429=7"}).status_code == 200
    assert httpx.get(f"{address}/oai").headers["Retry-After"] == "7"
    wrong = httpx.get(f"{address}/replay/faults", params={"add": "oai:419"})
    assert (wrong.status_code, "did you mean '429'" in wrong.text) == (400, True)
    assert len(httpx.get(f"{address}/replay/log").json()["log"]) == 4
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0


def test_the_program_says_in_one_line_what_it_cannot_use(program, tmp_path):
    process = program("--data", str(tmp_path))
    _, said = process.communicate(timeout=60)
    assert process.returncode == 2
    assert said.count("\n") == 1
    assert "has none of corpus" in said


def test_help_shows_an_example_and_every_fault(program):
    said, _ = program("--help").communicate(timeout=60)
    assert "ETUDE_ARXIV=http://127.0.0.1:8123" in said
    assert "truncate" in said


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("oai:429=7x3", Fault("oai", "429", "7", 3)),
        ("rss:stalex*", Fault("rss", "stale", "", None)),
        ("rss:stale=cs.AIx2", Fault("rss", "stale", "cs.AI", 2)),
        ("query:slow=0.5", Fault("query", "slow", "0.5", 1)),
    ],
)
def test_faults_are_read_as_they_are_written(text, fault):
    assert Fault.parse(text) == fault


@pytest.mark.parametrize("text", ["", "oai", "oai:", "tv:429", "oai:429=", "oai:429x", "a:b:c"])
def test_what_is_no_fault(text):
    with pytest.raises(PapersError):
        Fault.parse(text)


def test_a_port_in_use_is_told():
    with ReplayServer(generated(1)) as server:
        port = int(server.address.rpartition(":")[2])
        with pytest.raises(PapersError, match=f"port {port}"):
            ReplayServer(generated(1), port=port)


def test_headers_are_those_of_arxivs_feeds():
    now = datetime(2026, 5, 5, 12, tzinfo=UTC)
    with ReplayServer(generated(10), now=now) as server:
        got = httpx.get(f"{server.address}/rss/cs.CV")
        assert got.headers["Cache-Control"] == "max-age=57600"
        assert len(got.headers["ETag"]) == 66
        assert httpx.get(f"{server.address}/rss/CS.cv").status_code == 200
        assert httpx.get(f"{server.address}/rss/cs.CV+cs.CL").status_code == 200
        assert httpx.get(f"{server.address}/nothing").status_code == 404


def test_generated_worlds_are_the_same_for_one_seed():
    assert generated(30).papers == generated(30).papers
    assert generated(30).papers != generated(30, seed=1).papers


def test_recorded_versions_have_their_dates_and_numbers(shared_data, tmp_path):
    source = shared_data / "papers" / "versions.json"
    (tmp_path / "versions.json").symlink_to(source)
    world = recorded(tmp_path)
    papers = json.loads(source.read_text())["papers"]
    assert len(world.papers) == len({paper["arxiv_id"].rpartition("v")[0] for paper in papers})
    for paper in papers:
        key, _, number = paper["arxiv_id"].rpartition("v")
        version = world.papers[key].events[-1].version
        assert version.number == int(number)
        assert f"{version.submitted:%Y-%m-%d}" == paper["updated"]


def test_the_corpus_is_replayed_on_its_days(shared_data):
    day = date(2026, 4, 28)
    world = recorded(shared_data / "papers", since=day, until=day)
    assert {event.day for paper in world.papers.values() for event in paper.events} == {day}
    assert len(world.papers) > 400
