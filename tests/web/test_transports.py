"""The stream of events in a real browser, by each of its three ways, and through bad days.

A shared worker holds one connection for all tabs. Where a browser has none, the tab that leads does
and tells the others; where it cannot tell them, each tab asks. The fallbacks are forced by taking
from the browser what it must lack, before any script of the page runs.
"""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from tests.web.conftest import new_context
from tests.web.server_process import ServerProcess

from etude.tuning.runs.folder import RunFolder

pytestmark = pytest.mark.integration

NO_WORKER = "delete window.SharedWorker;"
NO_CHANNEL = "delete window.BroadcastChannel;"
WAYS = {"worker": "", "leader": NO_WORKER, "polling": NO_WORKER + NO_CHANNEL}
LONG_MS = 120_000
TABS = 20


@pytest.fixture(params=list(WAYS))
def way(request):
    return request.param


@pytest.fixture
def context(served, browser, way):
    """A browser that was let in, and has this way to the stream."""
    with new_context(browser) as context:
        context.set_default_timeout(LONG_MS)
        context.add_init_script(WAYS[way])
        page = context.new_page()
        page.goto(served.launch_link())
        page.close()
        yield context


@pytest.fixture
def run(bench):
    with RunFolder.create("heard", bench.runs) as folder:
        folder.append_metrics({"step": 1, "total_steps": 99, "loss": 2.0, "seconds": 1.0})
        folder.set_state("running")
        yield folder


def open_tab(context, address):
    page = context.new_page()
    page.goto(address)
    return page


def fetched(page, path):
    """Return a list that grows as scripts of the page fetch it."""
    found = []

    def note(request):
        if request.resource_type == "fetch" and urlsplit(request.url).path == path:
            found.append(request.url)

    page.on("request", note)
    return found


def shows(page, state):
    page.locator(f"#standing .state.{state}").wait_for()


def test_two_tabs_hear_of_each_change_once(served, context, run, way):
    path = f"/lab/runs/{run.name}"
    tabs = [open_tab(context, served.address + path) for _ in range(2)]
    counts = [fetched(tab, path) for tab in tabs]
    for tab in tabs:
        shows(tab, "running")
    for state in ("starting", "running", "failed", "finished"):
        run.set_state(state)
        for tab in tabs:
            shows(tab, state)
    # Three parts of the page follow the list of runs; one fetch serves them.
    assert [len(count) for count in counts] == [4, 4], way
    followers = {name: one.followers for name, one in served.app.inner.state.hub._watched.items()}
    assert followers.get("runs", 0) == (0 if way == "polling" else 1), "one connection for all"


def test_each_point_of_a_curve_is_drawn_once_in_each_tab(served, context, run):
    tabs = [open_tab(context, f"{served.address}/lab/runs/{run.name}") for _ in range(2)]
    for step in range(2, 40):
        run.append_metrics({"step": step, "total_steps": 99, "loss": 2.0, "seconds": 1.0 * step})
        if step % 10 == 0:
            for tab in tabs:
                tab.locator(f"etude-curves[data-steps='{step}']").wait_for()
    for tab in tabs:
        tab.locator("etude-curves[data-steps='39'][data-received='39']").wait_for()


def test_the_others_go_on_when_the_first_tab_is_closed(served, context, run):
    first, second, third = (
        open_tab(context, f"{served.address}/lab/runs/{run.name}") for _ in "abc"
    )
    run.set_state("starting")
    for tab in (first, second, third):
        shows(tab, "starting")
    first.close()
    run.set_state("finished")
    shows(second, "finished")
    shows(third, "finished")


@pytest.mark.parametrize("way", ["worker", "leader"])
def test_a_tab_that_left_is_followed_for_no_longer(served, browser, run, way):
    with new_context(browser) as context:
        context.add_init_script(WAYS[way])
        leader = context.new_page()
        leader.goto(served.launch_link())
        leader.goto(f"{served.address}/lab")
        other = open_tab(context, f"{served.address}/lab/runs/{run.name}")
        watched = served.app.inner.state.hub._watched
        topic = f"run/{run.name}"
        other.locator("etude-curves[data-steps='1']").wait_for()
        wait_until(other, lambda: topic in watched)
        other.goto(f"{served.address}/progress")
        wait_until(leader, lambda: topic not in watched)


def wait_until(page, holds):
    """Let the browser's events be handled until something holds."""
    for _ in range(LONG_MS // 50):
        if holds():
            return
        page.wait_for_timeout(50)
    raise AssertionError("it does not come")


def test_twenty_tabs_are_live_at_once_and_a_fetch_is_still_answered(served, context, run):
    paths = ["/lab", f"/lab/runs/{run.name}", "/", "/today/runs"]
    tabs = [open_tab(context, served.address + paths[n % len(paths)]) for n in range(TABS)]
    run.set_state("finished")
    for tab in tabs:
        tab.get_by_text("finished", exact=True).first.wait_for()
        tab.locator(".state.running").wait_for(state="detached")
    # With a connection for each tab, the seventh request would never be sent.
    for tab in (tabs[0], tabs[-1]):
        assert (
            tab.evaluate("fetch('/events/after?since=runs').then(answer => answer.status)") == 200
        )


def test_a_server_that_is_killed_and_started_again_loses_no_tab(browser, tmp_path, way):
    runs = tmp_path / "runs"
    with RunFolder.create("goes-on", runs) as run:
        run.append_metrics({"step": 1, "total_steps": 999, "loss": 2.0, "seconds": 1.0})
        run.set_state("running")
        server = ServerProcess(runs)
        # The console notes each request that the server did not answer.
        context = browser.new_context()
        try:
            context.set_default_timeout(LONG_MS)
            context.add_init_script(WAYS[way])
            open_tab(context, server.link()).close()
            address = f"{server.address}/lab/runs/{run.name}"
            tabs = [open_tab(context, address) for _ in range(3)]
            for tab in tabs:
                tab.evaluate("window.opened = 'once'")
            add_steps(run, 2, 10)
            for tab in tabs:
                tab.locator("etude-curves[data-steps='10']").wait_for()
            port = server.port
            server.kill()
            add_steps(run, 11, 30)
            run.set_state("failed", "while nobody looked")
            server.start()
            assert server.port == port
            add_steps(run, 31, 40)
            for tab in tabs:
                tab.locator("etude-curves[data-steps='40'][data-received='40']").wait_for()
                tab.locator("#standing", has_text="while nobody looked").wait_for()
                assert tab.evaluate("window.opened") == "once", "it was not loaded again"
        finally:
            context.close()
            server.kill()


def add_steps(run, first, last):
    for step in range(first, last + 1):
        run.append_metrics({"step": step, "total_steps": 999, "loss": 1.0, "seconds": 1.0 * step})


def test_a_tab_that_was_frozen_catches_up(served, context, run, way):
    """As a browser freezes tabs that nobody looks at, and a laptop that is shut all of them."""
    seen, frozen = (open_tab(context, f"{served.address}/lab/runs/{run.name}") for _ in "ab")
    session = context.new_cdp_session(frozen)
    session.send("Page.setWebLifecycleState", {"state": "frozen"})
    add_steps(run, 2, 30)
    run.set_state("finished")
    shows(seen, "finished")
    session.send("Page.setWebLifecycleState", {"state": "active"})
    shows(frozen, "finished")
    frozen.locator("etude-curves[data-steps='30'][data-received='30']").wait_for()


def test_a_page_that_is_shown_again_from_memory_catches_up(served, context, run):
    seen, left = (open_tab(context, f"{served.address}/lab/runs/{run.name}") for _ in "ab")
    shows(left, "running")
    # Playwright switches the browser's page cache off: the events are what it would send.
    left.evaluate("dispatchEvent(new PageTransitionEvent('pagehide', {persisted: true}))")
    add_steps(run, 2, 12)
    run.set_state("finished")
    shows(seen, "finished")
    left.evaluate("dispatchEvent(new PageTransitionEvent('pageshow', {persisted: true}))")
    shows(left, "finished")
    left.locator("etude-curves[data-steps='12'][data-received='12']").wait_for()


HIDDEN = """Object.defineProperty(document, "hidden", {get: () => window.isHidden ?? false});"""


def test_a_tab_that_asks_by_itself_does_not_while_it_is_hidden_and_then_catches_up(
    served, browser, run
):
    with new_context(browser) as context:
        context.set_default_timeout(LONG_MS)
        context.add_init_script(WAYS["polling"] + HIDDEN)
        open_tab(context, served.launch_link()).close()
        page = open_tab(context, f"{served.address}/lab/runs/{run.name}")
        asked = fetched(page, "/events/after")
        page.evaluate("window.isHidden = true")
        page.clock.install()
        page.clock.run_for(10_000)
        page.wait_for_load_state("networkidle")
        asked.clear()
        page.clock.run_for(60_000)
        run.set_state("finished")
        page.clock.run_for(60_000)
        assert asked == []
        page.evaluate(
            "window.isHidden = false; document.dispatchEvent(new Event('visibilitychange'))"
        )
        shows(page, "finished")


def test_a_clock_that_jumps_by_hours_stops_nothing(served, context, run, way):
    page = context.new_page()
    page.clock.install()
    page.goto(f"{served.address}/lab/runs/{run.name}")
    shows(page, "running")
    page.clock.fast_forward("09:00:00")
    run.set_state("starting")
    shows(page, "starting")
    page.clock.set_fixed_time("2020-01-01T00:00:00")
    run.set_state("finished")
    page.clock.run_for(5000)
    shows(page, "finished")
