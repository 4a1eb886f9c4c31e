"""Every room in a real browser: its policy, its accessibility, small, dark, and without scripts."""

from __future__ import annotations

import os

import pytest
from tests.app.test_today import solve
from tests.conftest import REPOSITORY

from etude.practice.problem import load_shelf
from etude.tuning.runs.folder import RunFolder
from etude.web.rooms import ROOMS

PATHS = [*(room.path for room in ROOMS), "/today/runs", "/practise/create-tensordataset"]
AXE = REPOSITORY / "frontend" / "node_modules" / "axe-core" / "axe.min.js"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


@pytest.fixture(scope="module")
def axe() -> str:
    if not AXE.exists():
        reason = "axe-core is not installed: npm ci --prefix frontend"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return AXE.read_text("utf-8")


@pytest.mark.parametrize("page", [{"bypass_csp": True}], indirect=True)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("record", [False, True])
def test_axe_finds_nothing_in_any_room(served, page, axe, scheme, record):
    if record and not served.bench.progress.tried():
        problem, other = load_shelf()[:2]
        solve(served.bench, problem)
        solve(served.bench, other, accepted=False)
    page.emulate_media(color_scheme=scheme)
    for path in PATHS:
        page.goto(served.address + path)
        page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
        page.evaluate(axe)
        found = page.evaluate(f"axe.run(document, {{runOnly: {RULES}}})")
        assert [one["id"] for one in found["violations"]] == [], path


@pytest.mark.parametrize("page", [{"viewport": {"width": 320, "height": 640}}], indirect=True)
def test_no_page_scrolls_sideways_on_a_phone(served, page):
    for path in PATHS:
        page.goto(served.address + path)
        assert page.evaluate("document.documentElement.scrollWidth") == 320, path


@pytest.mark.parametrize("page", [{"java_script_enabled": False}], indirect=True)
def test_every_room_is_reached_without_scripts(served, page):
    for room in ROOMS:
        page.get_by_role("navigation", name="Rooms").get_by_role("link", name=room.title).click()
        assert page.url == served.address + room.path
        assert page.get_by_role("heading", level=1).inner_text()


def test_the_first_key_offers_to_skip_the_navigation(served, page):
    page.goto(f"{served.address}/lab")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the page"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"


def test_a_run_of_the_command_line_appears_in_all_tabs_without_a_reload(served, page):
    page.goto(f"{served.address}/lab")
    pages = [page.context.new_page() for _ in range(7)]
    for other in pages:
        other.goto(f"{served.address}/lab")
    # Eight tabs at once: a browser opens six connections to one server, and one serves them all.
    with RunFolder.create("new-one", served.bench.runs) as run:
        for tab in (page, *pages):
            tab.get_by_text(run.name).wait_for()
        run.set_state("running")
        row = page.get_by_role("row").filter(has_text=run.name)
        row.get_by_text("running", exact=True).wait_for()
    row.get_by_text("killed", exact=True).wait_for()
