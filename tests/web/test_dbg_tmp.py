import pytest
from tests.web.conftest import *
from tests.web.test_transports import *
from tests.web.test_transports import WAYS


@pytest.fixture(params=["leader"])
def way(request):
    return request.param


def test_dbg(served, context, run):
    context.set_default_timeout(8000)
    page = context.new_page()
    page.on("request", lambda r: print("REQ", r.url[-80:]))
    page.on("requestfailed", lambda r: print("FAILED", r.url[-80:], r.failure))
    page.on("response", lambda r: print("RES", r.status, r.url[-80:]))
    page.clock.install()
    page.goto(f"{served.address}/lab/runs/{run.name}")
    page.locator("#standing .state.running").wait_for()
    page.wait_for_timeout(1500)
    hub = served.app.inner.state.hub
    print("WATCHED", {n: o.followers for n, o in hub._watched.items()})
    print(page.evaluate("navigator.locks.query()"))
    page.clock.fast_forward("09:00:00")
    print("WATCHED", {n: o.followers for n, o in hub._watched.items()})
    run.set_state("starting")
    try:
        page.locator("#standing .state.starting").wait_for()
    finally:
        print("WATCHED", {n: o.followers for n, o in hub._watched.items()})
