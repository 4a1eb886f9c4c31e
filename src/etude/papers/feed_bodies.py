"""Bodies of the feeds of one user, cached for a minute; whoever serves them adds the HTTP.

`all`, `for-you`, a shelf, `tags/NAME` and `searches/NAME`, each as `.rss`, `.atom` and `.json`.
"""

from __future__ import annotations

import gzip
import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from etude.papers.feeds import FEEDS, MEDIA_TYPES, feed
from etude.papers.library import Library

if TYPE_CHECKING:
    from etude.papers.reader import Reader
    from etude.papers.search import Index
    from etude.papers.settings import Settings

MOST_ITEMS = 200
NEWEST = 1000
"""Papers of which those for the reader are chosen."""
FRESH = 60.0
"""Seconds for which a feed is cached."""
_MOST_BODIES = 256

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Body:
    """Body of a response: a page or feed."""

    content: bytes
    packed: bytes
    media_type: str
    tag: str
    changed: datetime


@dataclass(frozen=True)
class FeedName:
    """A feed that there is."""

    title: str
    stem: str
    """Its path, quoted, without the suffix of a format."""


class FeedBodies:
    """Makes feeds.

    Args:
        library: the papers.
        index: for saved searches, which are omitted without it.
        settings: define the shelves.
        reader: user whose tags, searches and interest are served; None for shelves only.
        for_you: returns papers in the order of the user's interest, of the rows given; ranks them
            in this process unless given.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        library: Library,
        index: Index | None,
        settings: Settings,
        reader: Reader | None,
        *,
        for_you: Callable[[Rows], Rows] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._library, self._index, self._settings = library, index, settings
        self._reader, self._clock, self._for_you = reader, clock, for_you or self._ranked
        self._made: dict[str, tuple[float, Body]] = {}
        self._lock = threading.Lock()

    def body(self, path: str, link: str, self_link: str) -> Body | None:
        """Return a feed, or None if there is none of this path.

        Args:
            path: its stem and format, `tags/to%20read.rss`.
            link: URL of the page that it belongs to.
            self_link: its own URL.
        """
        return self.cached(path, lambda: self._content(path, link, self_link))

    def cached(self, key: str, make: Callable[[], tuple[bytes, str] | None]) -> Body | None:
        """Return what `make` makes (content, media type), cached for `FRESH` seconds."""
        now = self._clock()
        # Serialised, so that concurrent requests build a feed once.
        with self._lock:
            made, old = self._made.get(key, (0.0, None))
            if old is not None and 0 <= now - made < FRESH:
                return old
            found = make()
            if found is None:
                return None
            content, media_type = found
            tag = hashlib.sha256(content).hexdigest()[:32]
            if old is None or old.tag != tag:
                # Changes before the start are unknown, so a feed counts as changed at the start.
                changed = datetime.fromtimestamp(int(now), UTC)
                old = Body(content, gzip.compress(content, 6, mtime=0), media_type, tag, changed)
            if len(self._made) >= _MOST_BODIES:
                self._made.clear()
            self._made[key] = (now, old)
            return old

    def names(self) -> list[FeedName]:
        """Return the feeds that there are."""
        found = [FeedName("all papers", "all")]
        found += [FeedName(shelf, quote(shelf, "")) for shelf in self._settings.shelves]
        if self._reader is not None:
            found.append(FeedName("for you", "for-you"))
            found += [
                FeedName(f"tagged {tag}", f"tags/{quote(tag, '')}") for tag in self._reader.tags()
            ]
            if self._index is not None:
                found += [
                    FeedName(f"search {search.name}", f"searches/{quote(search.name, '')}")
                    for search in self._reader.searches()
                ]
        return found

    def _content(self, path: str, link: str, self_link: str) -> tuple[bytes, str] | None:
        stem, _, format_ = path.rpartition(".")
        if format_ not in FEEDS or not stem:
            return None
        found = self._rows([unquote(part, errors="replace") for part in stem.split("/")])
        if found is None:
            return None
        title, rows = found
        content = feed(
            rows,
            format_,
            title=f"Etude: {title}",
            link=link,
            self_link=self_link,
            description=f"Papers of arXiv: {title}.",
        )
        return content, MEDIA_TYPES[format_]

    def _rows(self, parts: list[str]) -> tuple[str, list[dict[str, Any]]] | None:
        """Return the title and papers of the feed at a path."""
        match parts:
            case ["all"]:
                return "all papers", self._library.newest(most=MOST_ITEMS)
            case ["for-you"] if self._reader is not None:
                return "for you", self._for_you(self._library.newest(most=NEWEST))[:MOST_ITEMS]
            case ["tags", tag] if self._reader is not None:
                ids = self._reader.tags().get(tag)
                if ids is not None:
                    return f"tagged {tag}", self._library.get_many(ids[:MOST_ITEMS])
            case ["searches", name] if self._reader is not None and self._index is not None:
                for search in self._reader.searches():
                    if search.name == name:
                        ids = self._index.search(search.query, most=MOST_ITEMS).ids
                        return f"search {name}", self._library.get_many(ids)
            case [shelf] if shelf in self._settings.shelves:
                return shelf, self._library.newest(self._settings.shelves[shelf], most=MOST_ITEMS)
            case _:
                pass
        return None

    def _ranked(self, rows: Rows) -> Rows:
        assert self._reader is not None
        return ranked_rows(self._library, self._reader, rows)


def ranked_rows(library: Library, reader: Reader, rows: Rows) -> Rows:
    """Return papers in the order of the reader's interest, without those they have judged."""
    from etude.papers.ranking import Interest, rank

    interest = Interest.fit(library, reader)
    day = rows[0]["announced"] if rows else ""
    judged = reader.opinions()
    rows = [row for row in rows if row["id"] not in judged]
    return [one.row for one in rank(rows, interest, seed=f"{day} {reader.name}")]


def is_current(body: Body, tag: str, tags: str | None, since: str | None) -> bool:
    """Return whether a client has a body already (RFC 9110, 13.1: ETag before date).

    Args:
        body: what would be sent.
        tag: its ETag, in quotation marks.
        tags: the client's `If-None-Match`.
        since: the client's `If-Modified-Since`.
    """
    if tags is not None:
        held = {one.strip().removeprefix("W/") for one in tags.split(",")}
        return tag in held or "*" in held
    if since is None:
        return False
    try:
        return body.changed <= parsedate_to_datetime(since)
    except (ValueError, TypeError):
        return False
