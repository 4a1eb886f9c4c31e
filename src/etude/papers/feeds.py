"""Feed writer: papers as RSS 2.0, Atom (RFC 4287) or JSON Feed 1.1.

An item's id is arXiv's own without a version, `oai:arXiv.org:2403.01234`: a new version updates an
item instead of adding one, unless `versions` is set. The same rows give the same bytes, so a server
can detect that nothing has changed. Control characters that XML forbids and direction marks are
removed; in HTML everything is escaped.

The three are written from one list of cards with the standard library. feedgen also writes RSS and
Atom, but stamps each feed with the current time, which changes it at every request, rejects whole
feeds for one control character, and does not support JSON Feed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import format_datetime
from html import escape
from typing import Any
from xml.etree import ElementTree

from etude.core.errors import PapersError, did_you_mean
from etude.papers.attribution import NOT_ARXIV, THANKS
from etude.papers.card import Card, card
from etude.papers.words import shown

FEEDS = ("rss", "atom", "json")
MEDIA_TYPES = {
    "rss": "application/rss+xml; charset=utf-8",
    "atom": "application/atom+xml; charset=utf-8",
    "json": "application/feed+json; charset=utf-8",
}
_ATOM = "http://www.w3.org/2005/Atom"
_DC = "http://purl.org/dc/elements/1.1/"
ElementTree.register_namespace("atom", _ATOM)
ElementTree.register_namespace("dc", _DC)
_SCHEME = "http://arxiv.org/schemas/atom"
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


def feed(
    rows: Sequence[Mapping[str, Any]],
    format: str,  # noqa: A002 - the term for feeds
    *,
    title: str,
    link: str,
    self_link: str,
    updated: datetime | None = None,
    description: str = "",
    versions: bool = False,
) -> bytes:
    """Return a feed of `rows`, in their order, each paper once.

    Args:
        rows: Records of the library.
        format: One of `FEEDS`.
        title: Title of the feed.
        link: URL of the page that the feed belongs to.
        self_link: URL of the feed itself.
        updated: Time of the last change, with a time zone; that of the newest item if None.
        description: Description of the feed, in a sentence.
        versions: Whether a new version is a new item.

    Raises:
        PapersError: the format is unknown.
    """
    if format not in FEEDS:
        raise PapersError(
            f"unknown feed format {format!r}{did_you_mean(format, FEEDS)}; "
            f"use one of {', '.join(FEEDS)}"
        )
    once: dict[str, Mapping[str, Any]] = {}
    for row in rows:
        once.setdefault(row["id"], row)
    cards = list(map(card, once.values()))
    moment = updated or max((one.changed for one in cards), default=_LONG_AGO)
    about = " ".join(filter(None, (shown(description), THANKS, NOT_ARXIV)))
    make = {"rss": _rss, "atom": _atom, "json": _json}[format]
    return make(cards, shown(title), link, self_link, moment, about, versions)


def identity(paper: Card, *, versions: bool = False) -> str:
    """Return the id of an item, which never changes."""
    version = f"v{paper.version or 1}" if versions else ""
    return f"oai:arXiv.org:{paper.id}{version}"


def _title(paper: Card) -> str:
    return f"Withdrawn: {paper.title}" if "withdrawn" in paper.marks else paper.title


def _html(paper: Card) -> str:
    """Return the item's text: summary, how it was made, abstract, and other fields."""
    lines: list[str] = []
    if paper.marks:
        lines.append(f"<strong>{escape(', '.join(paper.marks))}</strong>")
    if paper.summary:
        lines.append(escape(paper.summary))
        lines.append(f"<em>Summary: {escape(paper.made)}.</em>")
    lines.append(escape(paper.abstract))
    lines.append(escape(paper.byline(most=8)))
    facts = [", ".join(paper.categories), paper.comment]
    lines.append(escape(" · ".join(filter(None, facts))))
    lines.append(f'<a href="{escape(paper.link)}">{escape(paper.link)}</a>')
    return "".join(f"<p>{line}</p>" for line in lines if line)


def _rss(
    cards: list[Card],
    title: str,
    link: str,
    self_link: str,
    moment: datetime,
    about: str,
    versions: bool,
) -> bytes:
    root = ElementTree.Element("rss", {"version": "2.0"})
    channel = ElementTree.SubElement(root, "channel")
    _text(channel, "title", title)
    _text(channel, "link", link)
    _text(channel, "description", about)
    _text(channel, "language", "en")
    _text(channel, "lastBuildDate", format_datetime(moment.astimezone(UTC), usegmt=True))
    _text(channel, "generator", "Etude")
    ElementTree.SubElement(
        channel,
        f"{{{_ATOM}}}link",
        {"href": self_link, "rel": "self", "type": MEDIA_TYPES["rss"].partition(";")[0]},
    )
    for paper in cards:
        item = ElementTree.SubElement(channel, "item")
        _text(item, "title", _title(paper))
        _text(item, "link", paper.link)
        _text(item, "guid", identity(paper, versions=versions), {"isPermaLink": "false"})
        date = paper.changed if versions else paper.listed
        _text(item, "pubDate", format_datetime(date, usegmt=True))
        for author in paper.authors:
            _text(item, f"{{{_DC}}}creator", author)
        for category in paper.categories:
            _text(item, "category", category, {"domain": _SCHEME})
        if paper.licence:
            _text(item, f"{{{_DC}}}rights", paper.licence)
        _text(item, "description", _html(paper))
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)


def _atom(
    cards: list[Card],
    title: str,
    link: str,
    self_link: str,
    moment: datetime,
    about: str,
    versions: bool,
) -> bytes:
    root = ElementTree.Element("feed", {"xmlns": _ATOM})
    _text(root, "id", self_link)
    _text(root, "title", title)
    _text(root, "subtitle", about)
    _text(root, "updated", _iso(moment))
    ElementTree.SubElement(root, "link", {"rel": "self", "href": self_link})
    ElementTree.SubElement(root, "link", {"rel": "alternate", "href": link})
    _text(root, "generator", "Etude")
    # An entry without authors is allowed only in a feed that has one (RFC 4287, 4.1.1).
    _text(ElementTree.SubElement(root, "author"), "name", "arXiv")
    for paper in cards:
        entry = ElementTree.SubElement(root, "entry")
        _text(entry, "id", identity(paper, versions=versions))
        _text(entry, "title", _title(paper), {"type": "text"})
        _text(entry, "published", _iso(paper.changed if versions else paper.listed))
        _text(entry, "updated", _iso(paper.changed))
        ElementTree.SubElement(
            entry, "link", {"rel": "alternate", "type": "text/html", "href": paper.link}
        )
        for author in paper.authors:
            _text(ElementTree.SubElement(entry, "author"), "name", author)
        for category in paper.categories:
            ElementTree.SubElement(entry, "category", {"term": _legal(category), "scheme": _SCHEME})
        if paper.licence:
            _text(entry, "rights", paper.licence)
        if paper.summary:
            _text(entry, "summary", paper.summary, {"type": "text"})
        _text(entry, "content", _html(paper), {"type": "html"})
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)


def _json(
    cards: list[Card],
    title: str,
    link: str,
    self_link: str,
    moment: datetime,
    about: str,
    versions: bool,
) -> bytes:
    items: list[dict[str, Any]] = []
    for paper in cards:
        item: dict[str, Any] = {
            "id": identity(paper, versions=versions),
            "url": paper.link,
            "title": _title(paper),
            "content_html": _html(paper),
            "date_published": _iso(paper.changed if versions else paper.listed),
            "date_modified": _iso(paper.changed),
            "authors": [{"name": author} for author in paper.authors],
            "tags": list(paper.categories),
        }
        if paper.summary:
            item["summary"] = paper.summary
            item["_etude"] = {"summary_made": paper.made}
        if not paper.authors:
            del item["authors"]
        items.append(item)
    document = {
        "version": "https://jsonfeed.org/version/1.1",
        "title": title,
        "home_page_url": link,
        "feed_url": self_link,
        "description": about,
        "language": "en",
        "_etude": {"updated": _iso(moment)},
        "items": items,
    }
    return (json.dumps(document, ensure_ascii=False, indent=1) + "\n").encode(errors="replace")


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _text(
    parent: ElementTree.Element, tag: str, text: str, attributes: dict[str, str] | None = None
) -> None:
    ElementTree.SubElement(parent, tag, attributes or {}).text = _legal(text)


def _legal(text: str) -> str:
    """Return `text` without characters that XML forbids even escaped (XML 1.0, production 2)."""
    return "".join(letter for letter in shown(text) if letter not in "\ufffe\uffff")
