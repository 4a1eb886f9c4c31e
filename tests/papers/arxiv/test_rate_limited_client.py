"""The gate: how often arXiv is asked, and what happens when it says no."""

import json
import os
import random
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import format_datetime
from itertools import pairwise

import httpx
import pytest

from etude.core.errors import SourceError
from etude.papers.arxiv.rate_limited_client import (
    LONGEST_REST,
    Clocks,
    DamagedError,
    RateLimitedClient,
)
from etude.papers.fake_arxiv import ReplayServer, generated
from etude.papers.settings import Settings

ADDRESS = "https://export.arxiv.org/api/query"
START = 1_790_000_000.0


class Time:
    """A clock that only sleeping and answering move on."""

    def __init__(self):
        self.now, self.offset, self.boot, self.slept = 1000.0, START, "first", []

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds

    def clocks(self):
        return Clocks(
            lambda: self.now, lambda: self.now + self.offset, self.sleep, lambda: self.boot
        )


class Server:
    """Answers of `script` in turn, then 200; each takes `seconds`."""

    def __init__(self, time, *script, seconds=0.5):
        self.time, self.script, self.seconds, self.spans = time, list(script), seconds, []

    def __call__(self, _request):
        begin = self.time.now
        self.time.now += self.seconds
        self.spans.append((begin, self.time.now))
        step = self.script.pop(0) if self.script else 200
        if isinstance(step, Exception):
            raise step
        status, headers = step if isinstance(step, tuple) else (step, {})
        return httpx.Response(status, headers=headers, content=b"fine")


def gate(tmp_path, time, server, **settings):
    return RateLimitedClient(
        replace(Settings(), **settings),
        folder=tmp_path,
        clocks=time.clocks(),
        chance=random.Random(1),
        transport=httpx.MockTransport(server),
    )


def gaps(server):
    return [later[0] - earlier[1] for earlier, later in pairwise(server.spans)]


@pytest.fixture
def time():
    return Time()


def test_no_request_comes_before_three_seconds_after_the_end_of_the_last_answer(tmp_path, time):
    server = Server(time, seconds=20)
    with gate(tmp_path, time, server) as first, gate(tmp_path, time, server) as second:
        for _ in range(3):
            first.ask(ADDRESS, lambda answer: answer.status)
            second.ask("https://oaipmh.arxiv.org/oai", lambda answer: answer.status)
            time.now += 1
    assert min(gaps(server)) >= 3 - 1e-9


def test_the_user_agent_names_etude_and_the_contact(tmp_path, time):
    agents = []

    def server(request):
        agents.append(request.headers["User-Agent"])
        return httpx.Response(200)

    with gate(tmp_path, time, server, contact="mailto:ada@example.org") as asked:
        asked.ask(ADDRESS, lambda answer: answer.status)
    assert agents[0].startswith("etude/")
    assert "mailto:ada@example.org" in agents[0]


@pytest.mark.parametrize(
    "trouble",
    [
        429,
        403,
        500,
        503,
        httpx.ReadTimeout("slow"),
        httpx.ConnectError("refused"),
        httpx.RemoteProtocolError("peer closed connection"),
    ],
    ids=str,
)
def test_back_off_doubles_and_never_falls_below_the_pause(tmp_path, time, trouble):
    server = Server(time, trouble, trouble, trouble)
    with gate(tmp_path, time, server) as asked:
        assert asked.ask(ADDRESS, lambda answer: answer.body) == b"fine"
    found = gaps(server)
    assert len(found) == 3
    for gap, expected in zip(found, [10, 20, 40], strict=True):
        assert expected * 0.75 <= gap <= expected * 1.25
    # Jitter: clients that were refused together do not come back together.
    assert found != pytest.approx([10, 20, 40])


def test_retry_after_in_seconds_and_as_a_date_is_honoured(tmp_path, time):
    late = format_datetime(datetime.fromtimestamp(START + 5000, UTC), usegmt=True)
    now = format_datetime(datetime.fromtimestamp(START + 4910, UTC), usegmt=True)
    server = Server(
        time,
        (429, {"Retry-After": "77"}),
        # The server's clock, which `Date` tells, and not ours says how long that is.
        (503, {"Retry-After": late, "Date": now}),
        (429, {"Retry-After": "soon"}),
    )
    with gate(tmp_path, time, server) as asked:
        asked.ask(ADDRESS, lambda answer: answer.status)
    assert gaps(server)[:2] == pytest.approx([77, 90])
    assert 30 <= gaps(server)[2] <= 50


def test_a_retry_after_of_a_day_is_capped_and_ends_the_run_with_a_time(tmp_path, time):
    server = Server(time, (429, {"Retry-After": "86400"}))
    with gate(tmp_path, time, server) as asked, pytest.raises(SourceError, match=r"\d\d:\d\d UTC"):
        asked.ask(ADDRESS, lambda answer: answer.status)
    assert asked.cool_down()[0] == pytest.approx(LONGEST_REST)


def test_the_cool_down_outlives_processes_and_restarts_of_the_machine(tmp_path, time):
    server = Server(time, *[(429, {"Retry-After": "500"})] * 3)
    with gate(tmp_path, time, server, tries=1) as asked, pytest.raises(SourceError):
        asked.ask(ADDRESS, lambda answer: answer.status)
    time.now += 100
    with gate(tmp_path, time, server) as again:
        assert again.cool_down()[0] == pytest.approx(400)
    # After a restart the monotonic clock begins anew; the wall clock says what is gone.
    time.boot, time.now, time.offset = "second", 5.0, START + time.now - 5.0
    with gate(tmp_path, time, server, tries=1) as again, pytest.raises(SourceError):
        again.ask(ADDRESS, lambda answer: answer.status)
    assert time.slept[-1] == pytest.approx(400)
    with gate(tmp_path, time, server, tries=1, patience=10) as again, pytest.raises(SourceError):
        again.ask(ADDRESS, lambda answer: answer.status)
    assert len(server.spans) == 2


def test_failures_are_counted_across_processes_and_forgotten_after_a_success(tmp_path, time):
    server = Server(time, 503, 503, 200, 503)
    for _ in range(2):
        with gate(tmp_path, time, server, tries=1) as asked, pytest.raises(SourceError):
            asked.ask(ADDRESS, lambda answer: answer.status)
    with gate(tmp_path, time, server) as asked:
        asked.ask(ADDRESS, lambda answer: answer.status)
        asked.ask(ADDRESS, lambda answer: answer.status)
    first, second, pause, third = gaps(server)
    assert first < 13 and 15 <= second <= 25 and pause == pytest.approx(3) and third < 13


@pytest.mark.parametrize("jump", [-86_400 * 365, -3600, 3600, 86_400 * 365 * 20])
@pytest.mark.parametrize("restarted", [False, True])
def test_a_clock_that_jumps_never_waits_longer_than_the_rest(tmp_path, time, jump, restarted):
    server = Server(time)
    with gate(tmp_path, time, server) as asked:
        asked.ask(ADDRESS, lambda answer: answer.status)
        time.offset += jump
        if restarted:
            time.boot = "second"
        asked.ask(ADDRESS, lambda answer: answer.status)
    assert sum(time.slept) <= 3 + 1e-9
    if not restarted:  # the monotonic clock knows better than to be early, too
        assert gaps(server) == pytest.approx([3])


@pytest.mark.parametrize("text", ["", "{", "[]", '{"seconds": "x"}', '{"seconds": 1e300}', "\0"])
def test_a_damaged_file_of_the_gate_stops_nobody(tmp_path, time, text):
    (tmp_path / "arxiv-gate.json").write_text(text)
    server = Server(time)
    with gate(tmp_path, time, server, patience=1e9) as asked:
        assert asked.ask(ADDRESS, lambda answer: answer.status) == 200
    assert json.loads((tmp_path / "arxiv-gate.json").read_text())["seconds"] == 3
    assert sum(time.slept) <= LONGEST_REST


def test_other_refusals_are_asked_once_and_damaged_answers_again(tmp_path, time):
    server = Server(time, 404)
    with gate(tmp_path, time, server) as asked:
        assert asked.ask(ADDRESS, lambda answer: answer.status) == 404
        tried = []

        def read(answer):
            tried.append(answer.status)
            if len(tried) < 3:
                raise DamagedError("cut off")
            return "whole"

        assert asked.ask(ADDRESS, read) == "whole"
        with pytest.raises(SourceError, match="5 tries: cut off"):
            asked.ask(ADDRESS, lambda answer: (_ for _ in ()).throw(DamagedError("cut off")))
    assert len(server.spans) == 1 + 3 + 5


def test_ctrl_c_within_an_answer_still_leaves_the_pause_behind(tmp_path, time):
    def server(request):
        raise KeyboardInterrupt

    with gate(tmp_path, time, server) as asked, pytest.raises(KeyboardInterrupt):
        asked.ask(ADDRESS, lambda answer: answer.status)
    with gate(tmp_path, time, Server(time)) as asked:
        assert asked.cool_down()[0] == pytest.approx(3)


def test_a_redirect_within_the_site_waits_its_turn_and_one_to_another_is_not_followed(
    tmp_path, time
):
    server = Server(
        time,
        (301, {"Location": "https://arxiv.org/api/query"}),
        200,
        (302, {"Location": "https://arxiv.org.example.net/"}),
        *[(307, {"Location": "/round"})] * 5,
    )
    with gate(tmp_path, time, server) as asked:
        assert asked.ask(ADDRESS, lambda answer: answer.address) == "https://arxiv.org/api/query"
        with pytest.raises(SourceError, match="redirects off-site"):
            asked.ask(ADDRESS, lambda answer: answer.address)
        with pytest.raises(SourceError, match="repeatedly"):
            asked.ask(ADDRESS, lambda answer: answer.address)
    assert min(gaps(server)) >= 3 - 1e-9


ASKER = """
import sys
from pathlib import Path
from dataclasses import replace
from etude.papers.arxiv.rate_limited_client import RateLimitedClient
from etude.papers.settings import Settings
with RateLimitedClient(Settings().at(sys.argv[1], pause=0.15), folder=Path(sys.argv[2])) as gate:
    for _ in range(5):
        gate.ask(gate.settings.feeds + "/rss/cs.CV", lambda answer: answer.status)
"""


def test_two_processes_and_threads_share_one_gate(tmp_path):
    with ReplayServer(generated(40), now=datetime(2026, 5, 4, 12, tzinfo=UTC)) as server:
        server.spoil("rss:slow=0.01x3")
        command = [sys.executable, "-c", ASKER, server.address, str(tmp_path)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        processes = [subprocess.Popen(command, env=environment) for _ in range(2)]

        def ask():
            settings = Settings().at(server.address, pause=0.15)
            with RateLimitedClient(settings, folder=tmp_path) as asked:
                for _ in range(3):
                    asked.ask(f"{server.address}/rss/cs.CL", lambda answer: answer.status)

        thread = threading.Thread(target=ask)
        thread.start()
        assert [process.wait(60) for process in processes] == [0, 0]
        thread.join()
        log = sorted(server.log, key=lambda asked: asked.begin)
    assert len(log) == 13
    for earlier, later in pairwise(log):
        # The client's pause began after the last byte, which the server sent after `end`.
        assert later.begin - earlier.end >= 0.15


def test_less_than_three_seconds_are_refused_for_arxiv_itself():
    from etude.core.errors import PapersError

    with pytest.raises(PapersError, match="terms of use"):
        Settings(pause=1.0)
