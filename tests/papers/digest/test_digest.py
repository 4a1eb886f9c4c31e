"""A day's digest, read by a parser of Markdown, by Chromium, and by eye (see the screenshots)."""

from __future__ import annotations

import html
import os
import re
from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from etude.core.errors import PapersError
from etude.papers.attribution import THANKS
from etude.papers.card import card
from etude.papers.digest import Digest, digest
from etude.papers.digest.content import Content, Extra, Item, Section
from etude.papers.digest.markdown import JOINER, escaped
from etude.papers.library import Library
from etude.papers.ranking.alerts import waiting
from etude.papers.reader import Reader
from etude.papers.record import Announcement, Sighting
from etude.papers.search import Index
from etude.papers.settings import Settings
from etude.papers.words import shown as one_line
from etude.store.engine import open_store

DAY = "2024-03-05"
HOSTILE = [
    "<img src=x onerror='window.hacked=1'><script>window.hacked=2</script>",
    "![x](http://evil.example/pixel.png)",
    "[click](javascript:alert(1)) <http://evil.example> [a]: http://evil.example",
    "# heading\n\n> quote\n\n- item\n\n    code",
    "`code` ``more`` ~~~ ***bold*** __b__ ~~gone~~ | a | b | $x$ $$y$$",
    "www.evil.example https://evil.example/x me@evil.example ftp://e.example",
    "&lt;b&gt; &#60;i&#62; &amp; \\",
    "\u202eevil\u202c \x1b[31m \x00",
    "1. one\n2) two\n+ three\n=====\n-----",
    "0",
]


def sighting(number, title, categories=("cs.CV",), kind=Announcement.NEW, **changes):
    return Sighting(
        f"2403.{number:05}",
        title,
        "We show that it works. It does.",
        categories=tuple(categories),
        **{
            "authors": ("Ada Lovelace", "Alan Turing"),
            "version": 1,
            "published": datetime(2024, 3, 3, 12, tzinfo=UTC),
            "announced": date(2024, 3, 5),
            "announcement": kind,
            **changes,
        },
    )


@pytest.fixture
def library(tmp_path):
    library = Library(open_store(f"sqlite:///{tmp_path / 'a.sqlite3'}"))
    library.put(
        [
            sighting(1, "Detection of small things"),
            sighting(2, "A YOLO for all", ("cs.CV", "cs.LG")),
            sighting(3, "Large language models", ("cs.CL", "cs.AI")),
            sighting(4, "Strings", ("hep-th",)),
            sighting(5, "Crossed", ("cs.RO", "cs.CV"), Announcement.CROSS),
            sighting(6, "Older", kind=Announcement.REPLACE, version=2),
            sighting(7, "Gone", withdrawn=True, version=3),
            sighting(
                8,
                "Many hands",
                authors=tuple(f"Author {number}" for number in range(3303)),
                version=2,
            ),
        ]
    )
    library.set_summaries([("2403.00001", "We show that it works.", "extract:1")])
    return library


def plain(library, **options):
    return digest(library, Settings(), None, day=DAY, **options)


def test_every_shelf_has_its_papers_and_a_paper_stands_once(library):
    content = plain(library).content
    names = {
        section.name: [item.card.id[-1] for item in section.items] for section in content.sections
    }
    assert names == {"vision": ["8", "7", "2", "1", "5"], "language": ["3"], "New versions": ["6"]}
    yolo = next(item for item in content.sections[0].items if item.card.id.endswith("2"))
    assert yolo.also == ("learning",)
    assert content.subject == "Papers of 5 March 2024: 6 new"


def test_the_three_say_the_same(library):
    made = plain(library, topic=Extra("Softmax", "Why it overflows.", "https://etude.example/t"))
    how = card(library.get("2403.00001")).made
    text = " ".join(made.text().split())
    rendered = MarkdownIt("commonmark").render(made.markdown())
    for written in (text, rendered, made.html()):
        for wanted in (
            "Papers of 5 March 2024: 6 new", "Detection of small things", "Softmax", "overflows",
            "We show that it works.", how, "https://arxiv.org/abs/2403.00001", THANKS,
            "Author 0, Author 1, Author 2 et al., 3,303 authors", "withdrawn", "cross-list",
            "also learning", "version 2", "New versions",
        ):  # fmt: skip
            assert wanted in written.replace("&#x27;", "'"), wanted
        assert "Strings" not in written
    assert max(map(len, made.text().splitlines())) <= 78


def test_more_papers_than_fit_are_counted(library):
    section = plain(library, most=2).content.sections[0]
    assert (len(section.items), section.left_out) == (2, 3)
    assert "and 3 more" in plain(library, most=2).text()
    assert plain(library, most=2).subject == "Papers of 5 March 2024: 6 new"


def test_an_empty_day_says_why(library):
    saturday = digest(library, Settings(), None, day="2024-03-09")
    assert saturday.content.empty
    assert saturday.content.empty in " ".join(saturday.text().split())
    assert saturday.subject == "Papers of 9 March 2024: none new"
    told = digest(library, Settings(), None, day="2024-03-09", why_empty="arXiv did not answer.")
    for written in (told.text(), told.html(), told.markdown().replace("\\", "")):
        assert "arXiv did not answer." in written
    # Only new versions came: that is told, and so is that nothing is new.
    library.put(
        [sighting(1, "Better", kind=Announcement.REPLACE, version=2, announced=date(2024, 3, 11))]
    )
    monday = digest(library, Settings(), None, day="2024-03-11")
    assert monday.content.empty
    assert monday.subject.endswith("none new")


def test_the_last_day_is_the_one_where_none_is_named_and_no_day_is_one_line(library):
    assert digest(library, Settings(), None).content.day == date(2024, 3, 5)
    with pytest.raises(PapersError, match="'5 March' is not a date; use a date such as"):
        digest(library, Settings(), None, day="5 March")


def test_a_reader_with_opinions_gets_an_order_reasons_and_alerts_once(library, tmp_path):
    reader = Reader(library.engine, "ada")
    reader.like("2403.00001")

    reader.dislike("2403.00002")
    reader.save_search("yolo <b>", "yolo")
    index = Index(tmp_path / "index", library)
    library.put([sighting(9, "YOLO once more")])
    made = digest(library, Settings(), reader, day=DAY, index=index)
    vision = made.content.sections[0]
    places = {item.card.id: place for place, item in enumerate(vision.items)}
    assert places["2403.00001"] < places["2403.00002"]
    (liked,) = (item for item in vision.items if item.card.id == "2403.00001")
    assert liked.why
    assert f"because of {liked.why[0]}" in " ".join(made.text().split())
    assert "yolo <b> (new for what you follow)" in made.text()
    assert "yolo &lt;b&gt;" in made.html()
    again = digest(library, Settings(), reader, day=DAY, index=index)
    assert "what you follow" not in again.text()
    library.put([sighting(10, "YOLO for ever")])
    waits = waiting(reader, library, index)
    handed = digest(library, Settings(), reader, day=DAY, alerts=waits.alerts)
    assert "yolo <b> (new for what you follow)" in handed.text()
    assert [alert.ids for alert in waits.shown()] == [("2403.00010",)]
    # What a search found again is no new paper.
    assert made.content.count == 7


def test_a_paper_that_is_there_to_be_tried_says_so():
    row = {"id": "2403.00001", "title": "T", "abstract": "", "authors": [], "categories": []}
    item = Item(card({**row, "announced": DAY}), why=("x",), explored=True)
    made = Digest(Content(date(2024, 3, 5), (Section("vision", (item,)),)))
    for written in (made.text(), made.html(), made.markdown()):
        assert "included for exploration" in written
        assert "because of" not in written


def test_a_title_without_end_is_cut():
    row = {"id": "2403.00001", "abstract": "x" * 90_000, "authors": ["y" * 9000], "categories": []}
    shown = card({**row, "title": "word " * 30_000, "announced": DAY})
    assert len(shown.title) <= 400
    assert shown.title.endswith("…")
    assert len(shown.abstract) <= 5000
    assert len(shown.byline()) <= 120


def hostile(texts=HOSTILE):
    rows = [
        {
            "id": f"2403.{number:05}", "version": 1, "title": text, "abstract": text,
            "authors": [text, "B"], "categories": ["cs.CV"], "announced": DAY, "comment": text,
            "summary": text, "summary_by": "extract:1", "kind": "new",
        }
        for number, text in enumerate(texts, 1)
    ]  # fmt: skip
    items = tuple(Item(card(row), why=(row["title"],), also=(row["title"],)) for row in rows)
    text = texts[0]
    return Digest(
        Content(
            date(2024, 3, 5),
            (Section(text, items, note=text),),
            empty=text,
            topic=Extra(text, text, text),
            problem=Extra(text, text, "javascript:alert(1)"),
        )
    )


def _kinds(tokens):
    for token in tokens:
        yield token
        yield from _kinds(token.children or [])


@given(st.text(max_size=60) | st.sampled_from(HOSTILE))
def test_no_text_is_anything_but_text_in_markdown(text):
    for preset in ("commonmark", "gfm-like", "default"):
        parser = MarkdownIt(preset, {"linkify": True})
        for token in _kinds(parser.parse(f"- {escaped(text)}\n")):
            assert token.type in {
                "bullet_list_open", "bullet_list_close", "list_item_open", "list_item_close",
                "paragraph_open", "paragraph_close", "inline", "text",
            }  # fmt: skip
    rendered = MarkdownIt("commonmark").render(f"- x{escaped(text)}x\n")
    shown = re.sub(r"<[^>]*>", "", rendered).strip()
    assert html.unescape(shown).replace(JOINER, "") == one_line(f"x{one_line(text)}x")


def test_markdown_of_hostile_papers_links_nowhere_but_to_arxiv():
    parser = MarkdownIt("gfm-like", {"linkify": True, "html": True})
    tokens = list(_kinds(parser.parse(hostile().markdown())))
    assert not [token for token in tokens if token.type in {"html_block", "html_inline", "image"}]
    assert not [token for token in tokens if token.type.startswith(("code", "fence", "table"))]
    links = {token.attrs["href"] for token in tokens if token.type == "link_open"}
    assert links <= {f"https://arxiv.org/abs/2403.{n:05}" for n in range(1, len(HOSTILE) + 1)}
    headings = [token for token in tokens if token.type == "heading_open"]
    assert len(headings) == 4


def test_plain_text_holds_no_control_and_no_direction_marks():
    text = hostile().text()
    assert not set("\x1b\x00\u202e\u202c") & set(text)
    assert max(map(len, text.splitlines())) <= 78 + len(max(HOSTILE, key=len))


def _luminance(colour):
    values = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


CONTRASTS = """() => [...document.querySelectorAll('h1,h2,a,p,div.quiet,div.mark')].map(one => {
  const paper = element => getComputedStyle(element).backgroundColor;
  let under = one;
  while (paper(under) === 'rgba(0, 0, 0, 0)') under = under.parentElement;
  return [getComputedStyle(one).color, paper(under)];
})"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1280])
def test_the_page_is_readable_narrow_and_wide_light_and_dark(
    browser, library, tmp_path, scheme, width
):
    asked = []
    made = plain(library, topic=Extra("Softmax", "Why it overflows.", "https://etude.example/t"))
    for name, written in (("day", made.html()), ("hostile", hostile().html())):
        page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        page.on("request", lambda request: asked.append(request.url))
        file = tmp_path / f"{name}-{scheme}-{width}.html"
        file.write_text(written, "utf-8")
        page.goto(file.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate("window.hacked") is None
        assert page.locator("script, img, iframe, link, form").count() == 0
        for ink, paper in page.evaluate(CONTRASTS):
            light, dark = sorted((_luminance(ink), _luminance(paper)), reverse=True)
            # WCAG 2.2, 1.4.3.
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (ink, paper)
        folder = os.environ.get("ETUDE_SCREENSHOTS")
        if folder:
            page.screenshot(path=f"{folder}/digest-{name}-{scheme}-{width}.png", full_page=True)
        page.close()
    assert all(address.startswith("file:") for address in asked)


def test_html_of_hostile_papers_has_no_address_but_arxivs():
    addresses = set(re.findall(r'href="([^"]*)"', hostile().html()))
    assert all(address.startswith("https://arxiv.org/abs/2403.") for address in addresses)
