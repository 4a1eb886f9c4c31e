"""arXiv's RSS and Atom feeds: what was announced today in a category.

A feed holds one day only, is empty on weekends and holidays, leaves out replacements from version
6 on, and stops at 2,000 items, new papers first to go. It has been seen to serve yesterday's batch
under today's date, so nothing here trusts its dates: `sync` judges by the papers themselves.
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
"""A feed with as many has probably been cut."""
_ATOM = "{http://www.w3.org/2005/Atom}"
_ARXIV = "{http://arxiv.org/schemas/atom}"
_DC = "{http://purl.org/dc/elements/1.1/}"
_ABSTRACT = re.compile(r"^arXiv:\S+\s+Announce Type:\s*(\S+)\s+Abstract:\s?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Feed:
    """One answer of the feeds."""

    items: tuple[Sighting, ...]
    """As the feed orders them, without a day: `listed` gives them one."""
    built: datetime | None
    """What the feed says of its date."""
    etag: str | None
    skipped: int = 0
    """Items that could not be understood."""

    @property
    def full(self) -> bool:
        """Whether the feed reached its cap, so that papers are probably missing."""
        return len(self.items) + self.skipped >= MOST_ITEMS

    def listed(self, day: date) -> list[Sighting]:
        """The items as announced on `day`."""
        return [replace(item, announced=day) for item in self.items]


def fetch_feed(
    gate: RateLimitedClient, categories: Sequence[str], etag: str | None = None
) -> Feed | None:
    """The feed of `categories`, one or several, or None where it has not changed since `etag`.

    Raises:
        SourceError: no answer, or the feed refuses the categories.
    """
    settings = gate.settings
    return gate.ask(
        f"{settings.feeds}/{settings.feed_format}/{'+'.join(categories)}",
        read_feed,
        headers={"If-None-Match": etag} if etag else {},
    )


def read_feed(answer: Answer) -> Feed | None:
    """The feed in an answer; None under status 304.

    Raises:
        DamagedError: no whole feed.
        SourceError: an error that the feed tells of, or another refusal.
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
        raise DamagedError("the answer is no feed")
    if title.startswith("Feed error"):
        raise SourceError(f"arXiv's feed says: {' '.join((about or title).split())[:300]}")
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
