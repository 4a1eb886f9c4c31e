"""Papers in a real browser: keys, searching as one types, small screens, no scripts."""

from __future__ import annotations

import pytest
from tests.web.conftest import faults
from tests.web.rooms.papers_data import installation


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    with installation(tmp_path_factory.mktemp("papers")) as bench:
        bench.reader.tag("2604.00080", "walrus <b>")
        bench.reader.note("2604.00080", "a note " * 40)
        bench.reader.save_search("detectors", "yolo OR detector*")
        which = {"day": "2026-04-03", "shelf": None, "replaced": False}
        bench.ranking.ask("topics", 60.0, **which)
        yield bench


@pytest.fixture(autouse=True)
def forget(bench):
    yield
    for key in bench.reader.opinions():
        bench.reader.unlike(key)


def focused(page):
    return page.evaluate("document.activeElement.closest('[data-paper]')?.dataset.paper ?? null")


def listed(page):
    return page.evaluate(
        "[...document.querySelectorAll('li[data-paper]')].map(x => x.dataset.paper)"
    )


def settled(page):
    """Wait for what htmx has asked for."""
    page.locator(".htmx-request").first.wait_for(state="detached")


@pytest.mark.parametrize("page", [{"bypass_csp": True}], indirect=True)
def test_axe_finds_nothing_in_the_list_of_keys(served, page, axe):
    page.goto(f"{served.address}/papers")
    page.keyboard.press("?")
    page.get_by_role("dialog").wait_for()
    page.evaluate(axe)
    assert faults(page) == []


def test_a_paper_is_liked_and_opened_with_the_keyboard_alone(served, page):
    page.goto(f"{served.address}/papers?order=newest")
    ids = listed(page)
    page.keyboard.press("j")
    assert focused(page) == ids[0]
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    assert focused(page) == ids[1]
    page.keyboard.press("l")
    page.locator(f"#like-{ids[1].replace('.', chr(92) + '.')}[aria-pressed=true]").wait_for()
    assert served.bench.reader.opinions() == {ids[1]: 1}
    assert focused(page) == ids[1]
    page.keyboard.press("l")
    page.locator(f"#like-{ids[1].replace('.', chr(92) + '.')}[aria-pressed=false]").wait_for()
    assert served.bench.reader.opinions() == {}
    page.keyboard.press("d")
    page.locator(f"#dislike-{ids[1].replace('.', chr(92) + '.')}[aria-pressed=true]").wait_for()
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/papers/paper/{ids[1]}")
    page.keyboard.press("j")
    page.wait_for_url(f"**/papers/paper/{ids[2]}")
    page.keyboard.press("l")
    page.locator("[data-single] button[aria-pressed=true]").wait_for()
    assert served.bench.reader.opinions() == {ids[1]: -1, ids[2]: 1}
    page.keyboard.press("u")
    page.wait_for_url(f"**/papers?order=newest#paper-{ids[2]}")
    # The scripts of a page run once it has been read.
    page.locator(f"[data-paper='{ids[2]}'] a.open:focus").wait_for()


def test_papers_are_ticked_with_the_keyboard_and_exported(served, page):
    page.goto(f"{served.address}/papers?order=newest")
    ids = listed(page)
    page.keyboard.press("x")
    assert page.locator("#told").inner_text().startswith("Choose a paper first")
    for key in "jxjjxjx":
        page.keyboard.press(key)
    page.keyboard.press("x")  # taken back
    assert page.locator("#told").inner_text().startswith("Unticked: 2 to export")
    assert focused(page) == ids[3]
    page.get_by_label("Ticked papers as").select_option(label="RIS")
    with page.expect_download() as download:
        page.get_by_role("button", name="Export", exact=True).click()
    assert download.value.suggested_filename == "papers.ris"
    text = download.value.path().read_text("utf-8")
    assert text.count("TY  - ") == 2 and ids[0] in text and ids[2] in text


def test_the_button_keeps_the_focus_when_it_was_pressed(served, page):
    page.goto(f"{served.address}/papers?order=newest")
    button = page.get_by_role("button", name="Like A YOLOv8").first
    button.focus()
    page.keyboard.press("Enter")
    page.locator(".opinion button[aria-pressed=true]").wait_for()
    settled(page)
    assert page.evaluate("document.activeElement.getAttribute('aria-pressed')") == "true"


def test_keys_are_text_in_a_field(served, page):
    page.goto(f"{served.address}/papers?order=newest")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "q"
    page.keyboard.type("jk l?/d")
    assert page.input_value("#q") == "jk l?/d"
    assert served.bench.reader.opinions() == {}
    assert not page.evaluate("document.querySelector('#keys').open")
    page.goto(f"{served.address}/papers/paper/2604.00080")
    page.get_by_label("For yourself").focus()
    page.keyboard.type("ll")
    assert served.bench.reader.opinions() == {}


def test_results_come_while_one_types_and_the_address_follows(served, page):
    page.goto(f"{served.address}/papers")
    page.keyboard.press("/")
    page.keyboard.type("yolo")
    page.get_by_text("19 papers").wait_for()
    page.wait_for_url("**/papers/search?q=yolo")
    assert page.locator("mark").first.inner_text() == "YOLOv8"
    assert page.evaluate("document.activeElement.id") == "q"
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    assert focused(page) == listed(page)[0]
    page.reload()
    assert page.input_value("#q") == "yolo"
    page.get_by_text("19 papers").wait_for()


def test_the_keys_are_explained_and_can_be_switched_off(served, page):
    page.goto(f"{served.address}/papers?order=newest")
    page.keyboard.press("?")
    dialog = page.get_by_role("dialog", name="Keys")
    dialog.wait_for()
    dialog.get_by_label("Single keys work").uncheck()
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    assert focused(page) is None
    page.reload()
    page.keyboard.press("j")
    assert focused(page) is None
    page.keyboard.press("?")
    dialog.get_by_label("Single keys work").check()
    dialog.get_by_role("button", name="Close").click()
    page.keyboard.press("j")
    assert focused(page) == listed(page)[0]


def test_a_hostile_paper_is_text_on_all_its_pages(served, page):
    for path in ("/papers?order=newest", "/papers/search?q=hacked", "/papers/paper/2604.00080"):
        page.goto(served.address + path)
        page.get_by_text("window.hacked").first.wait_for(state="attached")
        page.keyboard.press("j")
        page.keyboard.press("l")
        settled(page)
        assert page.evaluate("window.hacked") is None
        assert page.locator("main img").count() == 0


def test_similar_papers_come_by_themselves(served, page):
    page.goto(f"{served.address}/papers/paper/2604.00041")
    page.locator("#beside li[data-paper]").first.wait_for()
    assert "2604.00041" not in listed(page)


def test_the_order_for_you_replaces_the_first_one_once_it_is_computed(served, page):
    for number in (2, 6, 10):
        served.bench.reader.like(f"2604.{number:05}")
    page.goto(f"{served.address}/papers?day=2026-04-02")
    page.get_by_text("because:").first.wait_for()
    page.get_by_text("being computed").wait_for(state="hidden")


def test_a_list_stays_as_it_is_while_one_reads(served, page):
    for number in (2, 6, 10):
        served.bench.reader.like(f"2604.{number:05}")
    page.goto(f"{served.address}/papers?day=2026-04-02&shelf=language")
    page.get_by_text("because:").first.wait_for()
    before = listed(page)
    # Another order is computed, of which the page is told.
    served.bench.reader.like("2604.00004")
    which = {"day": "2026-04-02", "shelf": "language", "replaced": False}
    assert served.bench.ranking.ask("day", 60.0, **which).current
    with page.expect_response("**/papers?day=*"):
        served.bench.ranking.answered += 1
    assert listed(page) == before


@pytest.mark.parametrize("page", [{"java_script_enabled": False}], indirect=True)
def test_everything_works_without_scripts(served, page):
    page.goto(f"{served.address}/papers?order=newest")
    page.get_by_role("button", name="Like A YOLOv8").first.click()
    assert "#paper-" in page.url
    assert list(served.bench.reader.opinions().values()) == [1]
    ids = listed(page)
    for number in (0, 4):
        page.get_by_role("checkbox", name="Export").nth(number).check()
    with page.expect_download() as download:
        page.get_by_role("button", name="Export", exact=True).click()
    text = download.value.path().read_text("utf-8")
    assert text.count("@") == 2 and ids[0] in text and ids[4] in text
    page.get_by_label("Search titles").fill("graph networks")
    page.get_by_role("button", name="Search").click()
    page.get_by_text("20 papers").wait_for()
    page.get_by_role("link", name="Graph networks for molecules").first.click()
    page.get_by_label("For yourself").fill("Read it again.")
    page.get_by_role("button", name="Save the note").click()
    assert page.get_by_label("For yourself").input_value() == "Read it again."
    page.get_by_label("New tag").fill("molecules")
    page.get_by_role("button", name="Add").click()
    page.get_by_role("link", name="#molecules").click()
    assert page.get_by_role("heading", level=1).inner_text() == "Tagged molecules"
    assert not page.get_by_role("button", name="Keys").is_visible()
