"""The app over an installation of its own: asked in this process, or served to a browser."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from tests.conftest import REPOSITORY

from etude.app.workbench import Workbench, open_workbench
from etude.papers.record import Announcement, Sighting
from etude.tuning.runs.folder import RunFolder
from etude.tuning.runs.process import send
from etude.web.app import App, create_app
from etude.web.security import cookie_name
from etude.web.server import listen, make_server
from etude.web.session import Sessions, launch_token

AXE = REPOSITORY / "frontend" / "node_modules" / "axe-core" / "axe.min.js"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
PORT = 8700
KEY, LAUNCH_KEY = b"k" * 32, b"l" * 32
EVIL = '<img src=x onerror="window.hacked=1">'


@dataclass
class Web:
    """An app and what belongs to it."""

    app: App
    bench: Workbench
    sessions: Sessions
    address: str

    def launch_link(self) -> str:
        """Return a link that lets a browser in once."""
        return f"{self.address}/open?token={launch_token(LAUNCH_KEY)}"


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workbench]:
    """Rooms with runs, papers and names that try to be HTML."""
    folder: Path = tmp_path_factory.mktemp("web")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ETUDE_DATABASE", f"sqlite:///{folder / 'etude.sqlite3'}")
        patch.setenv("ETUDE_USER", "ada")
        bench = open_workbench(runs=folder / "runs")
        make_runs(bench.runs)
        bench.library.put([sighting(number) for number in range(1, 6)])
        yield bench
        bench.close()
        # A run does not need its server, so it would go on after the tests.
        for folder in bench.runs.iterdir():
            record = RunFolder(folder).state_record()
            if record.get("pid") != os.getpid():  # those of `make_runs` were made here
                send(record, signal.SIGKILL)


def make_runs(base: Path) -> None:
    """Make a finished run, one that failed with a hostile reason, and a damaged one."""
    with RunFolder.create("finished", base) as run:
        run.append_metrics({"step": 1, "loss": 2.0, "seconds": 3.0})
        run.write_json("summary.json", {"model": "tiny", "task": "chat", "method": "qlora"})
        run.set_state("finished")
    with RunFolder.create("failed", base) as run:
        run.set_state("failed", f"the disk is full {EVIL}")
    with RunFolder.create("damaged", base) as run:
        run.set_state("finished")
        (run.path / "summary.json").write_text("{ not JSON")


def sighting(number: int) -> Sighting:
    """A paper whose title tries to be HTML."""
    return Sighting(
        f"2403.{number:05}",
        f"A paper {number} {EVIL}",
        "An abstract.",
        ("Ada Lovelace",),
        ("cs.CV",),
        version=1,
        published=datetime(2024, 3, 3, 12, tzinfo=UTC),
        announced=date(2024, 3, 4),
        announcement=Announcement.NEW,
    )


@pytest.fixture(scope="module")
def web(bench: Workbench) -> Web:
    """The app."""
    sessions = Sessions(KEY, LAUNCH_KEY)
    return Web(create_app(bench, sessions, port=PORT), bench, sessions, f"http://127.0.0.1:{PORT}")


@pytest.fixture
def visitor(web: Web) -> Iterator[TestClient]:
    """A browser that was not let in."""
    with TestClient(
        web.app, web.address, raise_server_exceptions=False, follow_redirects=False
    ) as client:
        yield client


@pytest.fixture
def client(web: Web, visitor: TestClient) -> TestClient:
    """A browser with a session."""
    visitor.cookies.set(cookie_name(PORT), web.sessions.begin())
    return visitor


@pytest.fixture(scope="module")
def served(bench: Workbench) -> Iterator[Web]:
    """The app on a port of this machine."""
    listener = listen("127.0.0.1", None)
    port: int = listener.getsockname()[1]
    sessions = Sessions(KEY, LAUNCH_KEY)
    app = create_app(bench, sessions, port=port)
    server = make_server(app)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    yield Web(app, bench, sessions, f"http://127.0.0.1:{port}")
    app.inner.state.hub.close()
    server.should_exit = True
    thread.join(30)


@pytest.fixture(scope="session")
def axe() -> str:
    """The script that looks for what is not accessible."""
    if not AXE.exists():
        reason = "axe-core is not installed: npm ci --prefix frontend"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return AXE.read_text("utf-8")


def faults(page: Any) -> list[tuple[str, str]]:
    """Return what axe, which the page has run, finds: the rule, and the first place."""
    found = page.evaluate(f"axe.run(document, {{runOnly: {RULES}}})")
    return [(one["id"], one["nodes"][0]["html"]) for one in found["violations"]]


@contextmanager
def new_context(browser: Any, expected: str = "", **options: Any) -> Iterator[Any]:
    """Open a context of a browser; what any of its tabs says on its console fails the test.

    Args:
        browser: of Playwright.
        expected: what is found in messages that are no fault here, and at least one of which must
            come.
        options: of the context.
    """
    context = browser.new_context(**options)
    said: list[str] = []
    context.on("console", lambda message: said.append(message.text))
    context.on("weberror", lambda error: said.append(str(error.error)))
    try:
        yield context
    finally:
        context.close()
    assert [text for text in said if not expected or not re.search(expected, text)] == []
    assert not expected or said, f"nothing was said of {expected!r}"


@pytest.fixture
def page(served: Web, browser: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A page that was let in; any message on its console, a policy's violation say, fails.

    `request.param` holds options of the browser's context. A test that is marked `refused_form`
    sends a form with a mistake in it: Chromium notes the answer, whose status is 422.
    """
    refused = request.node.get_closest_marker("refused_form") is not None
    options = getattr(request, "param", {})
    with new_context(browser, "status of 422" if refused else "", **options) as context:
        page = context.new_page()
        page.goto(served.launch_link())
        yield page
