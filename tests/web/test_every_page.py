"""All pages, made from the table of routes: rules, small and enlarged, without colours, by keys."""

from __future__ import annotations

import re
from contextlib import ExitStack

import httpx
import pytest
from tests.web.conftest import faults, new_context
from tests.web.every_page import PAGE_ROUTES, addresses, furnished, is_page, settle

from etude.web.security import cookie_name

UNUSUAL = {
    "/no-such-page": 404,
    "/login": 303,
    "/events/after": 422,
    "/lab/compare": 422,
    "/papers/export": 422,
    "/papers/tagged": 404,
}
"""Answers without what an address needs, or that lead elsewhere."""
WALKED = 400
"""Stops of the longest walk."""

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def bench(tmp_path_factory, tiny_llama):
    with furnished(tmp_path_factory.mktemp("every"), str(tiny_llama(layers=1))) as bench:
        yield bench


@pytest.fixture(scope="module")
def reader(served):
    """A client that was let in."""
    cookies = {cookie_name(int(served.address.rpartition(":")[2])): served.sessions.begin()}
    with httpx.Client(base_url=served.address, cookies=cookies, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def pages(reader, bench):
    """The addresses of each route's pages; none for what is no page."""
    found: dict[str, list[str]] = {}
    wrong: dict[str, int] = {}
    for route in PAGE_ROUTES:
        answers = [(path, reader.get(path)) for path in addresses(route, bench.runs)]
        for path, answer in answers:
            if answer.status_code != UNUSUAL.get(path, 200):
                wrong[path] = answer.status_code
        found[route] = [path for path, answer in answers if is_page(answer)]
    assert wrong == {}
    return found


@pytest.fixture(scope="module")
def opened(served, browser):
    """Contexts that were let in, by their options; each is opened once for all pages."""
    with ExitStack() as stack:
        made: dict[str, object] = {}

        def get(**options):
            key = repr(sorted(options.items()))
            if key not in made:
                # The browser notes the answers of pages that say what is wrong.
                context = stack.enter_context(
                    new_context(browser, "status of (404|422)", **options)
                )
                page = context.new_page()
                page.goto(served.launch_link())
                page.goto(f"{served.address}/no-such-page")
                made[key] = page
            return made[key]

        yield get


def visit(page, served, path, *, unfold=True):
    """Open a page, and all that is folded on it, once what its scripts ask for is there."""
    page.goto(served.address + path)
    settle(page)
    if unfold:
        page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")


def test_each_live_part_says_where_its_topic_stood(pages, reader):
    parts = []
    for path in [path for paths in pages.values() for path in paths]:
        for tag in re.findall(r"<etude-live[^>]*>", reader.get(path).text):
            assert re.search(r' topic="[\w/.+-]+"', tag) and re.search(r' at="[^"]+"', tag), path
            parts.append(tag)
    topics = {re.search(r'topic="(\w+)', tag)[1] for tag in parts}
    assert topics >= {"runs", "run", "log", "draft", "papers", "models", "submission"}


def test_there_are_pages_of_all_rooms(pages):
    found = [path for paths in pages.values() for path in paths]
    assert len(found) > 40
    for start in ("/practise/", "/papers/", "/lab/new/", "/lab/runs/", "/models", "/settings"):
        assert any(path.startswith(start) for path in found), start


@pytest.mark.parametrize("route", PAGE_ROUTES)
def test_axe_finds_nothing(served, pages, opened, axe, route):
    page = opened(bypass_csp=True)
    for path in pages[route]:
        visit(page, served, path)
        page.evaluate(axe)
        for media in (
            {"color_scheme": "light"},
            {"color_scheme": "dark"},
            {"forced_colors": "active", "color_scheme": "light"},
            {"forced_colors": "active", "color_scheme": "dark"},
        ):
            page.emulate_media(**{"forced_colors": "none", **media})
            assert faults(page) == [], (path, media)
        page.emulate_media(forced_colors="none", color_scheme="light")


CUT = """() => [...document.querySelectorAll("body *")].filter(one => {
  const box = one.getBoundingClientRect();
  if (!box.width || getComputedStyle(one).visibility === "hidden") return false;
  const own = ".scroll, .skip, .sr, svg, pre, .tokens, textarea, select, etude-editor, math";
  if (one.closest(own)) return false;
  return box.right > innerWidth + 1 || box.left < -1;
}).map(one => one.outerHTML.slice(0, 120))"""
"""What stands out to the side, where a page cannot be scrolled to it."""


MOVES = """() => {
  const found = document.getAnimations().map(one => one.animationName ?? one.transitionProperty);
  for (const one of document.querySelectorAll("*"))
    for (const part of [null, "::before", "::after"]) {
      const style = getComputedStyle(one, part);
      const lasts = `${style.transitionDuration},${style.animationDuration}`.split(",");
      if (lasts.some(time => parseFloat(time) > 0) || style.scrollBehavior === "smooth")
        found.push(one.outerHTML.slice(0, 120));
    }
  return found;
}"""


COLOURLESS = """() => {
  const marks = {
    ".trained": "decoration or border", ".dropped": "decoration", ".special": "outline",
    "mark": "decoration", ".differs": "decoration",
    "a[aria-current]": "weight or decoration", "[aria-invalid]": "outline",
  };
  const said = [];
  for (const selector in marks)
    for (const one of document.querySelectorAll(`main ${selector}`)) {
      const style = getComputedStyle(one);
      const shown = style.textDecorationLine !== "none" || parseFloat(style.borderBottomWidth) > 0
        || style.outlineStyle !== "none" || parseInt(style.fontWeight) >= 600;
      if (!shown && one.checkVisibility()) said.push(one.outerHTML.slice(0, 120));
    }
  for (const one of document.querySelectorAll("main .state, main .known"))
    if (getComputedStyle(one, "::before").content.length < 3) said.push(one.outerHTML);
  for (const one of document.querySelectorAll("main svg path, main svg circle")) {
    const style = getComputedStyle(one);
    if (style.stroke === "none" && style.fill === "none") said.push(one.outerHTML.slice(0, 120));
  }
  return said;
}"""


PAINTED = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"


@pytest.mark.parametrize("route", PAGE_ROUTES)
def test_a_page_fits_small_and_enlarged_keeps_still_and_needs_no_colours(
    served, pages, opened, route
):
    """On a phone of 320 pixels, and at 200 % on a screen of 1,280, as 640 doubled ones."""
    page = opened(reduced_motion="reduce", device_scale_factor=2)
    for path in pages[route]:
        page.set_viewport_size({"width": 640, "height": 512})
        visit(page, served, path)
        assert page.evaluate(MOVES) == [], path
        for width in (640, 320):
            page.set_viewport_size({"width": width, "height": 512})
            page.evaluate(PAINTED)
            assert page.evaluate("document.documentElement.scrollWidth") == width, path
            for _ in range(200):  # charts are drawn anew
                if page.evaluate(CUT) == []:
                    break
                page.evaluate(PAINTED)
            assert page.evaluate(CUT) == [], (path, width)
        page.emulate_media(forced_colors="active")
        assert page.evaluate(COLOURLESS) == [], path
        page.emulate_media(forced_colors="none")


TABBED = """() => {
  const wanted = "a[href], button, input, select, textarea, summary, [tabindex], etude-editor";
  return [...document.querySelectorAll(wanted)].filter(one =>
    !one.disabled && one.type !== "hidden" && one.checkVisibility() &&
    (one.tabIndex >= 0 || one.localName === "etude-editor") && !one.closest("etude-editor textarea")
  ).length;
}"""
STOP = """() => {
  const one = document.activeElement;
  if (!one || one === document.body) return null;
  const inner = one.shadowRoot?.activeElement ?? one;
  const box = inner.getBoundingClientRect(), style = getComputedStyle(inner);
  const x = Math.min(Math.max(box.left + Math.min(box.width, 40) / 2, 0), innerWidth - 1);
  const y = Math.min(Math.max(box.top + Math.min(box.height, 40) / 2, 0), innerHeight - 1);
  const top = document.elementFromPoint(x, y);
  const label = one.getAttribute("aria-label") ?? (one.getAttribute("aria-labelledby")
    ? document.getElementById(one.getAttribute("aria-labelledby"))?.textContent
    : one.labels?.[0]?.textContent) ?? one.textContent ?? "";
  window.stops ??= [];
  const before = window.stops.at(-1);
  const again = window.stops.includes(one);
  window.stops.push(one);
  const ring = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0;
  return {
    name: one.localName === "etude-editor" ? "editor" : label.trim().replace(/\\s+/g, " "),
    tag: one.tagName.toLowerCase(),
    type: one.type ?? "",
    again,
    follows: !before || !!(before.compareDocumentPosition(one) & Node.DOCUMENT_POSITION_FOLLOWING),
    ring: ring || !!one.shadowRoot,
    inSight: box.bottom > 0 && box.top < innerHeight && box.right > 0 && box.left < innerWidth,
    onTop: !!top && (one.contains(top) || top.contains(one)),
  };
}"""


def walk(page):
    """Press Tab until the page ends; return the stops, each of which was seen to be right."""
    page.evaluate("window.stops = []")
    stops = []
    while len(stops) < WALKED:
        if stops and stops[-1]["tag"] == "etude-editor":
            page.keyboard.press("Escape")  # in the editor, Tab indents
        page.keyboard.press("Tab")
        stop = page.evaluate(STOP)
        if stop is None or stop["again"]:
            return stops
        stops.append(stop)
    raise AssertionError("the walk does not end")


ORDER = {
    "/": ["Skip to the page", "Etude", "Settings", "All problems"],
    "/lab": ["Skip to the page", "Start a run", "Runs", "Compare the ticked runs"],
    "/lab/new": ["A file to send", "or the path", "Task", "Model", "Method", "Look at the data"],
    "/lab/new/{draft}": [
        "Tokens of", "Memory by part", "Rows that contain", "Search", "Rows", "YAML",
        "Store, and look again", "Start the run",
    ],
    "/lab/runs/{name}": [
        "Chat with it", "Report", "Clone with changes", "Training loss: arrow keys",
        "Predictions", "Download the adapter", "Lines of the log", "Resolved, every key",
        "Delete the run", "Delete",
    ],
    "/papers": ["Search titles", "Search", "All shelves", "Following", "Keys"],
    "/papers/paper/{key:path}": ["Like Title", "Not for me: Title", "Save the note", "Keys"],
    "/practise": ["Skip to the page", "Practise", "Collection", "Difficulty"],
    "/practise/{slug}": [
        "Your submissions", "Lesson and solution", "editor", "Run visible tests", "Submit",
    ],
    "/settings": [
        "Count days in a row", "Time zone", "Fetch papers", "Save", "Export everything",
        "Zip file of an export", "Import", "Type “delete”", "Delete my records",
    ],
}  # fmt: skip
"""Stops that a person looks for, in the order in which the page is read; others are between."""


@pytest.mark.parametrize("route", PAGE_ROUTES)
def test_tab_walks_each_page_in_the_order_in_which_it_is_read(served, pages, opened, route):
    page = opened(reduced_motion="reduce")  # otherwise it still scrolls while it is looked at
    for path in pages[route]:
        visit(page, served, path, unfold=False)
        count = page.evaluate(TABBED)
        stops = walk(page)
        assert stops[0]["name"] == "Skip to the page", path
        for stop in stops:
            where = (path, stop)
            assert stop["name"], where
            assert stop["follows"] and stop["ring"] and stop["inSight"] and stop["onTop"], where
        assert len(stops) == count, path
        wanted = ORDER.get(route, []) if path == pages[route][0] else []
        names = iter([stop["name"] for stop in stops])
        for name in wanted:
            assert any(one.startswith(name) for one in names), (path, name)
