"""Client for arXiv's RSS and Atom feeds, which list the announcements of a day.

A feed holds one day only, is empty on weekends and holidays, omits replacements from version
6 on, and stops at 2,000 items, dropping new papers first. It has been observed to serve
yesterday's batch under today's date, so its dates are not trusted: `sync` dates the papers instead.
Source: https://info.arxiv.org/help/rss.html and the server, https://github.com/arXiv/arxiv-feed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from xml.etree.ElementTree import Element

from etude.core.errors import SourceError
from etude.papers.arxiv.rate_limited_client import Answer, DamagedError, RateLimitedClient
from etude.papers.arxiv.text import moment, names_in, parsed
from etude.papers.identity import parse_identifier
from etude.papers.record import Announcement, Sighting

MOST_ITEMS = 2000
"""A feed with as many items has probably been truncated."""
_ATOM = "{http://www.w3.org/2005/Atom}"
_ARXIV = "{http://arxiv.org/schemas/atom}"
_DC = "{http://purl.org/dc/elements/1.1/}"
_ABSTRACT = re.compile(r"^arXiv:\S+\s+Announce Type:\s*(\S+)\s+Abstract:\s?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Feed:
    """Parsed content of a feed."""

    items: tuple[Sighting, ...]
    """In the feed's order and without a day; `listed` sets it."""
    built: datetime | None
    """The feed's own date."""
    etag: str | None
    skipped: int = 0
    """Number of malformed items."""

    @property
    def full(self) -> bool:
        """Whether the feed reached its cap, so that papers are probably missing."""
        return len(self.items) + self.skipped >= MOST_ITEMS

    def listed(self, day: date) -> list[Sighting]:
        """Return the items with `day` as their announcement."""
        return [replace(item, announced=day) for item in self.items]


def fetch_feed(
    gate: RateLimitedClient, categories: Sequence[str], etag: str | None = None
) -> Feed | None:
    """Fetch the feed of `categories`, or None if it has not changed since `etag`.

    Raises:
        SourceError: no answer, or the server rejects the categories.
    """
    settings = gate.settings
    return gate.ask(
        f"{settings.feeds}/{settings.feed_format}/{'+'.join(categories)}",
        read_feed,
        headers={"If-None-Match": etag} if etag else {},
    )


def read_feed(answer: Answer) -> Feed | None:
    """Parse a response; None for status 304.

    Raises:
        DamagedError: the feed is incomplete.
        SourceError: the feed reports an error, or the request was refused.
    """
    if answer.status == 304:
        return None
    if answer.status != 200 and not answer.body.lstrip().startswith(b"<"):
        raise SourceError(f"{answer.address} was refused: HTTP {answer.status}")
    try:
        root = parsed(answer.body, "the feed")
    except DamagedError:
        if answer.status != 200:
            raise SourceError(f"{answer.address} was refused: HTTP {answer.status}") from None
        raise
    channel = root.find("channel")
    if root.tag == "rss" and channel is not None:
        title, about = channel.findtext("title", ""), channel.findtext("description", "")
        entries = channel.findall("item")
        built = channel.findtext("lastBuildDate") or channel.findtext("pubDate")
    elif root.tag == f"{_ATOM}feed":
        title, about = root.findtext(f"{_ATOM}title", ""), root.findtext(f"{_ATOM}subtitle", "")
        entries = root.findall(f"{_ATOM}entry")
        built = root.findtext(f"{_ATOM}updated")
    elif answer.status != 200:
        raise SourceError(f"{answer.address} was refused: HTTP {answer.status}")
    else:
        raise DamagedError("the response is not a feed")
    if title.startswith("Feed error"):
        raise SourceError(f"arXiv's feed reports: {' '.join((about or title).split())[:300]}")
    if answer.status != 200:
        raise SourceError(f"{answer.address} was refused: HTTP {answer.status}")
    read = _rss_item if root.tag == "rss" else _atom_entry
    items: list[Sighting] = []
    for entry in entries:
        try:
            items.append(read(entry))
        except ValueError:
            continue
    return Feed(tuple(items), moment(built), answer.headers.get("etag"), len(entries) - len(items))


def _rss_item(item: Element) -> Sighting:
    return _item(
        item,
        item.findtext("guid") or item.findtext("link") or "",
        item.findtext("title"),
        item.findtext("description"),
        [category.text or "" for category in item.findall("category")],
    )


def _atom_entry(entry: Element) -> Sighting:
    return _item(
        entry,
        entry.findtext(f"{_ATOM}id") or "",
        entry.findtext(f"{_ATOM}title"),
        entry.findtext(f"{_ATOM}summary"),
        [category.get("term", "") for category in entry.findall(f"{_ATOM}category")],
    )


def _item(
    item: Element, key: str, title: str | None, about: str | None, categories: list[str]
) -> Sighting:
    found = parse_identifier(key)
    head = _ABSTRACT.match(about or "")
    kind = item.findtext(f"{_ARXIV}announce_type") or (head[1] if head else "new")
    creators = [creator.text or "" for creator in item.findall(f"{_DC}creator")]
    if title is None or about is None:
        raise ValueError(f"{key} has no title or no abstract")
    return Sighting(
        found.id,
        title,
        about[head.end() :] if head else about,
        tuple(name for creator in creators for name in names_in(creator)),
        tuple(dict.fromkeys(category for category in categories if category)),
        version=found.version,
        licence=item.findtext(f"{_DC}rights") or "",
        doi=item.findtext(f"{_ARXIV}DOI") or "",
        journal_ref=item.findtext(f"{_ARXIV}journal_reference") or "",
        announcement=Announcement(kind.strip().lower()),
    )
