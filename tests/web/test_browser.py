"""Every room in a real browser: unused, without scripts, and in several tabs."""

from __future__ import annotations

import pytest
from tests.web.conftest import faults

from etude.tuning.runs.folder import RunFolder
from etude.web.rooms import ROOMS


@pytest.mark.parametrize("page", [{"bypass_csp": True}], indirect=True)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_in_rooms_that_nobody_has_used(served, page, axe, scheme):
    """Those that were used: test_every_page."""
    page.emulate_media(color_scheme=scheme)
    for room in ROOMS:
        page.goto(served.address + room.path)
        page.evaluate(axe)
        assert faults(page) == [], room.path


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
