"""Feeds as readers of feeds see them: feedparser, the schema of Atom, the rules of JSON Feed."""

from __future__ import annotations

import html
import json
import lzma
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from html.parser import HTMLParser

import feedparser
import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from etude.core.errors import PapersError
from etude.papers.attribution import THANKS
from etude.papers.card import card
from etude.papers.feeds import FEEDS, feed

PLACE = {"title": "Vision", "link": "http://127.0.0.1/", "self_link": "http://127.0.0.1/vision"}

# RFC 4287, appendix B, for the elements that a feed without extensions may have.
ATOM = """
<grammar xmlns="http://relaxng.org/ns/structure/1.0" ns="http://www.w3.org/2005/Atom"
  datatypeLibrary="http://www.w3.org/2001/XMLSchema-datatypes">
 <start><element name="feed"><interleave>
  <oneOrMore><ref name="person"/></oneOrMore>
  <zeroOrMore><ref name="category"/></zeroOrMore>
  <optional><element name="generator"><text/></element></optional>
  <element name="id"><data type="anyURI"><param name="minLength">1</param></data></element>
  <oneOrMore><ref name="link"/></oneOrMore>
  <optional><element name="rights"><ref name="words"/></element></optional>
  <optional><element name="subtitle"><ref name="words"/></element></optional>
  <element name="title"><ref name="words"/></element>
  <element name="updated"><ref name="date"/></element>
  <zeroOrMore><element name="entry"><interleave>
   <zeroOrMore><ref name="person"/></zeroOrMore>
   <zeroOrMore><ref name="category"/></zeroOrMore>
   <optional><element name="content"><ref name="words"/></element></optional>
   <element name="id"><data type="anyURI"><param name="minLength">1</param></data></element>
   <oneOrMore><ref name="link"/></oneOrMore>
   <optional><element name="published"><ref name="date"/></element></optional>
   <optional><element name="rights"><ref name="words"/></element></optional>
   <optional><element name="summary"><ref name="words"/></element></optional>
   <element name="title"><ref name="words"/></element>
   <element name="updated"><ref name="date"/></element>
  </interleave></element></zeroOrMore>
 </interleave></element></start>
 <define name="person"><element name="author"><element name="name"><data type="string">
  <param name="minLength">1</param></data></element></element></define>
 <define name="category"><element name="category"><attribute name="term"/>
  <optional><attribute name="scheme"><data type="anyURI"/></attribute></optional>
  <empty/></element></define>
 <define name="link"><element name="link"><attribute name="href"><data type="anyURI"/></attribute>
  <optional><attribute name="rel"><choice><value>self</value><value>alternate</value></choice>
  </attribute></optional>
  <optional><attribute name="type"><data type="string"><param name="pattern">.+/.+</param></data>
  </attribute></optional><empty/></element></define>
 <define name="words"><optional><attribute name="type"><choice><value>text</value>
  <value>html</value></choice></attribute></optional><text/></define>
 <define name="date"><data type="dateTime">
  <param name="pattern">.+T.+(Z|[+\\-]\\d\\d:\\d\\d)</param></data></define>
</grammar>"""

# https://www.jsonfeed.org/version/1.1/, what it says with "required" and of types.
JSON_FEED = {
    "type": "object",
    "required": ["version", "title", "items"],
    "properties": {
        "version": {"const": "https://jsonfeed.org/version/1.1"},
        "title": {"type": "string"},
        "home_page_url": {"type": "string", "format": "uri"},
        "feed_url": {"type": "string", "format": "uri"},
        "description": {"type": "string"},
        "language": {"type": "string"},
        "items": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["id", "content_html"],
                "properties": {
                    "id": {"type": "string", "minLength": 1},
                    "url": {"type": "string", "format": "uri"},
                    "title": {"type": "string"},
                    "content_html": {"type": "string"},
                    "summary": {"type": "string"},
                    "date_published": {"type": "string", "format": "date-time"},
                    "date_modified": {"type": "string", "format": "date-time"},
                    "authors": {
                        "type": "array",
                        "minItems": 1,
                        "items": {
                            "type": "object",
                            "required": ["name"],
                            "properties": {"name": {"type": "string"}},
                        },
                    },
                    "tags": {"type": "array", "items": {"type": "string"}},
                },
                "patternProperties": {"^_": {"type": "object"}},
                "additionalProperties": False,
            },
        },
    },
    "patternProperties": {"^_": {"type": "object"}},
    "additionalProperties": False,
}


def paper(**changes):
    row = {
        "id": "2403.00001",
        "version": 1,
        "title": "A title",
        "abstract": "An abstract of a few words.",
        "authors": ["Ada Lovelace", "Alan Turing"],
        "categories": ["cs.CV", "cs.LG"],
        "published": datetime(2024, 3, 1, 12, tzinfo=UTC).timestamp(),
        "updated": datetime(2024, 3, 1, 12, tzinfo=UTC).timestamp(),
        "comment": "Accepted",
        "licence": None,
        "announced": "2024-03-04",
        "replaced": None,
        "withdrawn": None,
        "summary": "A short sentence.",
        "summary_by": "extract:1",
    }
    return {**row, **changes}


def valid(content, format_):
    """Raise where a validator finds fault; return what feedparser or json makes of it."""
    if format_ == "json":
        document = json.loads(content)
        jsonschema.validate(document, JSON_FEED, format_checker=jsonschema.FormatChecker())
        return document
    root = etree.fromstring(content)
    if format_ == "atom":
        etree.RelaxNG(etree.fromstring(ATOM)).assertValid(root)
    else:
        for item in root.iter("item"):
            assert [child.tag for child in item].count("guid") == 1
    parsed = feedparser.parse(content)
    assert not parsed.bozo, parsed.get("bozo_exception")
    return parsed


@pytest.mark.parametrize("format_", ["rss", "atom"])
def test_feedparser_reads_what_was_meant(format_):
    parsed = valid(feed([paper(licence="http://a.b/c")], format_, **PLACE), format_)
    (entry,) = parsed.entries
    assert entry.id == "oai:arXiv.org:2403.00001"
    assert entry.link == "https://arxiv.org/abs/2403.00001"
    assert entry.title == "A title"
    assert [author.name for author in entry.authors] == ["Ada Lovelace", "Alan Turing"]
    assert [tag.term for tag in entry.tags] == ["cs.CV", "cs.LG"]
    # Midnight of the 4th of March in New York, where winter's clock is five hours behind.
    assert entry.published_parsed[:5] == (2024, 3, 4, 5, 0)
    text = entry.content[0].value if format_ == "atom" else entry.summary
    assert "A short sentence." in text
    assert card(paper()).made in html.unescape(text)
    assert "An abstract of a few words." in text
    assert THANKS in parsed.feed.subtitle
    assert parsed.feed.title == "Vision"
    assert [link.href for link in parsed.feed.links if link.rel == "self"] == [PLACE["self_link"]]


def test_json_feed_says_the_same():
    document = valid(feed([paper()], "json", **PLACE), "json")
    (item,) = document["items"]
    assert (item["id"], item["url"]) == (
        "oai:arXiv.org:2403.00001",
        "https://arxiv.org/abs/2403.00001",
    )
    assert item["summary"] == "A short sentence."
    assert item["date_published"] == "2024-03-04T05:00:00Z"
    assert THANKS in document["description"]


def _dates(content, format_):
    if format_ == "json":
        return [
            (i["id"], i["date_published"], i["date_modified"]) for i in json.loads(content)["items"]
        ]
    return [(e.id, e.published, e.get("updated")) for e in feedparser.parse(content).entries]


@pytest.mark.parametrize("format_", FEEDS)
def test_a_new_version_is_the_same_item_unless_asked(format_):
    second = paper(
        version=2, replaced="2024-05-02", updated=datetime(2024, 5, 1, tzinfo=UTC).timestamp()
    )
    (before,) = _dates(feed([paper()], format_, **PLACE), format_)
    (after,) = _dates(feed([second], format_, **PLACE), format_)
    assert after[:2] == before[:2]
    if format_ != "rss":
        assert after[2] == "2024-05-02T04:00:00Z"
    (asked,) = _dates(feed([second], format_, versions=True, **PLACE), format_)
    assert asked[0] == "oai:arXiv.org:2403.00001v2"
    assert asked[1] != before[1]


@pytest.mark.parametrize("format_", FEEDS)
def test_no_paper_stands_twice_and_the_order_is_kept(format_):
    rows = [paper(id="2403.00002"), paper(), paper(id="2403.00002"), paper(id="hep-th/9901001")]
    ids = [one[0] for one in _dates(feed(rows, format_, **PLACE), format_)]
    assert ids == [f"oai:arXiv.org:{key}" for key in ("2403.00002", "2403.00001", "hep-th/9901001")]


@pytest.mark.parametrize("format_", FEEDS)
def test_the_same_papers_give_the_same_bytes_and_none_are_a_valid_feed(format_):
    assert feed([paper()], format_, **PLACE) == feed([paper()], format_, **PLACE)
    valid(feed([], format_, **PLACE), format_)


def test_dates_follow_the_clock_of_new_york_over_the_year():
    content = feed(
        [paper(announced="2024-07-01"), paper(id="2403.9", announced="2024-01-05")], "rss", **PLACE
    )
    dates = [parsedate_to_datetime(entry.published) for entry in feedparser.parse(content).entries]
    assert [(date.hour, date.utcoffset()) for date in dates] == [
        (4, timedelta(0)),
        (5, timedelta(0)),
    ]


@pytest.mark.parametrize("format_", FEEDS)
def test_a_withdrawn_paper_says_so_and_a_title_of_0_is_a_title(format_):
    content = feed([paper(withdrawn=True), paper(id="2104.12255", title="0")], format_, **PLACE)
    parsed = valid(content, format_)
    titles = [e["title"] for e in (parsed["items"] if format_ == "json" else parsed.entries)]
    assert titles == ["Withdrawn: A title", "0"]


class _Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = set()

    def handle_starttag(self, tag, attrs):
        self.found.add((tag, *sorted(name for name, _ in attrs)))


def _parts(content, format_):
    if format_ == "json":
        return [(item["title"], item["content_html"]) for item in json.loads(content)["items"]]
    namespace = "{http://www.w3.org/2005/Atom}" if format_ == "atom" else ""
    body = "content" if format_ == "atom" else "description"
    return [
        (item.findtext(f"{namespace}title"), item.findtext(f"{namespace}{body}"))
        for item in etree.fromstring(content).iter(f"{namespace}entry", "item")
    ]


HOSTILE = st.text(max_size=60) | st.sampled_from(
    [
        "<script>alert(1)</script>",
        "]]><script>",
        "&lt;img src=x onerror=alert(1)&gt;",
        "<![CDATA[x",
        "\x00\x08\x0b\ufffe\uffff",
        "\u202egnp.exe",
        "\ud800 lone",
        "<!-- --><?php ?>",
        '"><a href="javascript:1">',
        r"\href{javascript:alert(1)}{x}",
    ]
)


@pytest.mark.parametrize("format_", FEEDS)
@given(text=HOSTILE)
def test_hostile_texts_stay_texts(format_, text):
    row = paper(
        title=text, abstract=text, comment=text, summary=text or None, authors=[text, "B"],
        licence=text,
    )  # fmt: skip
    content = feed([row], format_, **{**PLACE, "title": text})
    if format_ != "json":
        etree.fromstring(content)
    else:
        json.loads(content)
    ((title, body),) = _parts(content, format_)
    tags = _Tags()
    tags.feed(body)
    assert tags.found <= {("p",), ("em",), ("strong",), ("a", "href")}
    assert not set("\u202e\x00\x08") & set(title + body)


@pytest.mark.parametrize("format_", FEEDS)
def test_real_papers_give_valid_feeds(shared_data, format_):
    with lzma.open(shared_data / "papers" / "corpus.jsonl.xz", "rt") as file:
        found = [json.loads(line) for line, _ in zip(file, range(300), strict=False)]
    rows = [
        paper(
            **{
                key: row[key]
                for key in ("id", "title", "abstract", "authors", "categories", "comment")
            },
            announced=row["announced"][0],
        )
        for row in found
    ]
    parsed = valid(feed(rows, format_, **PLACE), format_)
    assert len(parsed["items"] if format_ == "json" else parsed.entries) == len(rows)


def test_3303_authors_are_all_named():
    content = feed([paper(authors=[f"A {n}" for n in range(3303)])], "rss", **PLACE)
    assert len(feedparser.parse(content).entries[0].authors) == 3303
    assert "et al., 3,303 authors" in _parts(content, "rss")[0][1]


def test_a_format_that_does_not_exist_is_one_line():
    with pytest.raises(PapersError, match=r"unknown feed format 'atm' \(did you mean 'atom'\?\)"):
        feed([], "atm", **PLACE)
