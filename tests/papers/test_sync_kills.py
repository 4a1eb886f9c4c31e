"""Whatever goes wrong and whenever a sync is killed: the database ends as if nothing had.

Equal are all fields of every paper but when and in which order this library saw it (`first_seen`,
`revision`, `number`), and every listing.
"""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from etude.papers.fake_arxiv import ReplayServer, generated
from etude.papers.fake_arxiv.oai import Pages
from etude.papers.library import Library
from etude.papers.settings import Settings
from etude.papers.sync import sync
from etude.store.engine import open_store

pytestmark = pytest.mark.integration

MONDAY = datetime(2026, 5, 4, 12, tzinfo=UTC)
DAYS = [MONDAY + timedelta(days=number) for number in (0, 1, 2, 3, 4, 5, 7)]
FAULTS = [
    *("any:429=0x2", "any:429=1", "any:403", "any:500x2", "any:503=0", "any:reset", "any:html"),
    *("oai:truncate", "oai:cut", "oai:slow=0.01", "oai:expired", "oai:twicex3", "oai:error"),
    *("oai:500x30", "oai:truncatex3", "oai:reset", "rss:truncate", "rss:cut", "rss:error"),
    *("rss:stale=cs.AI", "rss:stalex5", "rss:lagx3", "rss:empty=cs.LG", "rss:emptyx5", "rss:500x9"),
    *(
        "query:shuffle",
        "query:empty",
        "query:total=3",
        "query:error200",
        "query:500x9",
        "query:cut",
    ),
]
CHILD = """
import sys
from pathlib import Path
from etude.papers.library import Library
from etude.papers.settings import Settings
from etude.papers.sync import sync
from etude.store.engine import open_store
address, server, folder, now = sys.argv[1:]
settings = Settings().at(server, timeout=5, tries=3)
sync(Library(open_store(address)), settings, clock=lambda: float(now), folder=Path(folder))
"""


def contents(engine):
    """Rows of papers and listings as the database has them, read without the library."""
    with engine.connect() as connection:
        papers = connection.execute(text("SELECT * FROM papers ORDER BY id")).mappings().all()
        listings = connection.execute(
            text("SELECT id, day, kind FROM papers_listings ORDER BY id, day")
        ).all()
    left_out = {"first_seen", "revision", "number"}
    rows = [{k: v for k, v in row.items() if k not in left_out} for row in papers]
    return rows, [tuple(listing) for listing in listings]


@pytest.fixture(scope="module")
def world():
    return generated(100, seed=3)


@pytest.fixture(scope="module")
def undisturbed(world, tmp_path_factory, request):
    """What an undisturbed library holds after each day, by kind of database."""
    found = {}

    def after(address, kind):
        if kind not in found:
            engine = open_store(address)
            folder = tmp_path_factory.mktemp("undisturbed")
            found[kind] = []
            with ReplayServer(world, pages=Pages(records=15)) as server:
                for now in DAYS:
                    server.now = now
                    report = sync(
                        Library(engine),
                        Settings().at(server.address),
                        clock=now.timestamp,
                        folder=folder,
                    )
                    assert not report.failed
                    found[kind].append(contents(engine))
            engine.dispose()
        return found[kind]

    return after


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_kills_and_faults_leave_the_database_of_an_undisturbed_run(
    world, undisturbed, address, tmp_path, seed, request
):
    kind = "sqlite" if address.startswith("sqlite") else "postgresql"
    if kind == "sqlite":
        clean = f"sqlite:///{tmp_path / 'clean.sqlite3'}"
    else:
        import psycopg

        name = f"clean{time.time_ns()}"
        server = request.getfixturevalue("postgres")
        with psycopg.connect(server.replace("+psycopg", ""), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        clean = server.replace("/postgres?", f"/{name}?")
    expected = undisturbed(clean, kind)
    chosen = random.Random(seed)
    engine = open_store(address)
    killed = 0
    with ReplayServer(world, pages=Pages(records=15)) as server:
        for now, right in zip(DAYS, expected, strict=True):
            server.now = now
            for _ in range(chosen.randint(1, 2)):
                server.spoil(*chosen.sample(FAULTS, chosen.randint(0, 4)))
                killed += _killed(chosen, server, address, tmp_path, now)
            server.faults.clear()
            report = sync(
                Library(engine),
                Settings().at(server.address),
                clock=now.timestamp,
                folder=tmp_path,
            )
            assert not report.failed, report.lines()
            assert contents(engine) == right
    engine.dispose()
    assert killed >= 3
    assert len(right[0]) == 100


def _killed(chosen, server, address, folder, now):
    """Run a sync in a process and kill it after some request; whether that came in time."""
    command = [sys.executable, "-c", CHILD, address, server.address, str(folder)]
    child = subprocess.Popen(
        [*command, str(now.timestamp())], env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    goal = len(server.log) + chosen.randint(1, 18)
    while child.poll() is None and len(server.log) < goal:
        time.sleep(0.001)
    time.sleep(chosen.uniform(0, 0.05))
    if child.poll() is None:
        child.send_signal(signal.SIGKILL)
    return child.wait() == -signal.SIGKILL


# A world is synchronised in each: a fifth of what other properties are given.
@settings(
    max_examples=max(6, settings().max_examples // 5),
    suppress_health_check=list(HealthCheck),
)
@given(
    faults=st.lists(st.lists(st.sampled_from(FAULTS), max_size=5), min_size=3, max_size=3),
    stops=st.lists(st.integers(1, 20), min_size=3, max_size=3),
)
@example(faults=[[], [], ["oai:500x30", "query:error200"]], stops=[1, 1, 5])  # feeds alone
def test_ctrl_c_anywhere_and_any_faults_lose_nothing(
    world, undisturbed, tmp_path_factory, faults, stops
):
    folder = tmp_path_factory.mktemp("stopped")
    expected = undisturbed(f"sqlite:///{folder / 'clean.sqlite3'}", "sqlite")
    engine = open_store(f"sqlite:///{folder / 'papers.sqlite3'}")
    library = Library(engine)
    with ReplayServer(world, pages=Pages(records=15)) as server:
        wanted = Settings().at(server.address, timeout=5, tries=3)
        for number, (of_day, stop) in enumerate(zip(faults, stops, strict=True)):
            now = server.now = DAYS[number]
            server.spoil(*of_day)
            steps = iter(range(stop))

            def stopping(_progress, steps=steps):
                if next(steps, None) is None:
                    raise KeyboardInterrupt

            with contextlib.suppress(KeyboardInterrupt):
                sync(library, wanted, clock=now.timestamp, folder=folder, show=stopping)
            server.faults.clear()
            report = sync(library, wanted, clock=now.timestamp, folder=folder)
            assert not report.failed, report.lines()
            assert contents(engine) == expected[number]
    engine.dispose()
