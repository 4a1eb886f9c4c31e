"""Alerts: new papers of saved searches and followed authors, each shown once.

A paper is new if it was stored after the last alert was shown. New versions, and old papers that
arrive through a replacement or a backfill, are not. Each search stores the number of the newest
paper checked, and updates it by compare-and-set: of two programs that check at the same time, only
one shows an alert.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from sqlalchemy import Connection, select, update

from etude.core.errors import EtudeError
from etude.papers.authors import followed_among
from etude.papers.library import CHUNK, Library
from etude.papers.read_marks import author_seen, author_shown, newest
from etude.papers.reader import Reader
from etude.store import papers as tables

if TYPE_CHECKING:
    from sqlalchemy import Table

LATE_DAYS = 14
"""Days before the newest known paper from which an announcement counts as backfill."""
MOST = 20_000
"""Maximum number of newest papers checked at once."""
_PAGE = 500

_paper = cast("Table", tables.Paper.__table__)
_listing = cast("Table", tables.Listing.__table__)
_search = cast("Table", tables.SavedSearch.__table__)


class Found(Protocol):
    """Interface of a search result, of which only the ids are read."""

    @property
    def ids(self) -> Sequence[str]:
        """Ids of the papers found."""
        ...


class Searches(Protocol):
    """The subset of `etude.papers.search.Index` that alerts use."""

    def refresh(self) -> int:
        """Update the index from the library."""
        ...

    def search(
        self,
        text: str,
        *,
        order: Literal["newest", "relevance"] = ...,
        most: int = ...,
        offset: int = ...,
        since: str | None = ...,
    ) -> Found:
        """Find papers, newest first."""
        ...


@dataclass(frozen=True)
class Alert:
    """New papers of one saved search or followed author."""

    name: str
    """Name of the search or author."""
    kind: Literal["search", "author"]
    ids: tuple[str, ...]
    """Newest first; a paper that matches several alerts is in the first of them."""
    also: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    """By id, the other searches and authors that a paper matches."""


@dataclass(frozen=True)
class _Source:
    name: str
    kind: Literal["search", "author"]
    query: str
    seen: int


@dataclass(frozen=True)
class Waiting:
    """Alerts that were not shown yet.

    Attributes:
        alerts: the alerts.
        problems: a line for each search that failed; its alerts stay pending.
    """

    alerts: list[Alert]
    problems: list[str]
    _reader: Reader
    _found: list[tuple[_Source, list[str]]]
    upto: int
    """Number of the newest paper that was looked at."""

    def shown(self) -> list[Alert]:
        """Mark the alerts as shown; return those that no other program has shown meanwhile.

        Call it after delivery: until then the alerts are found again.
        """
        with self._reader.engine.begin() as connection:
            mine = [
                (source, ids)
                for source, ids in self._found
                if _moved(connection, self._reader, source, self.upto)
            ]
        return _alerts_of(mine)


def alerts(reader: Reader, library: Library, index: Searches) -> list[Alert]:
    """Return the user's new papers since the last call, each once.

    If delivery can fail, as with mail, use `waiting` and call `Waiting.shown` afterwards.

    Args:
        reader: the user's saved searches and followed authors.
        library: the papers.
        index: index for saved searches; it is refreshed first.
    """
    return waiting(reader, library, index).shown()


def waiting(reader: Reader, library: Library, index: Searches, *, refresh: bool = True) -> Waiting:
    """Return the pending alerts without marking them as shown.

    Without `refresh`, papers that the index does not have yet may be missing until it does.
    """
    with library.engine.connect() as connection:
        # Before the index is refreshed: what arrives meanwhile is reported next time.
        upto = int(connection.execute(select(newest())).scalar_one())
        sources = [
            _Source(search.name, "search", search.query, search.seen)
            for search in reader.searches()
        ]
        sources += [
            _Source(name, "author", "", author_seen(connection, reader.name, name))
            for name in reader.following()
        ]
        candidates = {
            seen: _news(connection, seen, upto) for seen in {source.seen for source in sources}
        }
    if refresh and any(source.kind == "search" and candidates[source.seen] for source in sources):
        index.refresh()
    found: list[tuple[_Source, list[str]]] = []
    problems: list[str] = []
    for source in sources:
        rows = candidates[source.seen]
        if source.kind == "author":
            ids = [row["id"] for row in rows if followed_among([source.name], row["authors"])]
        else:
            try:
                matched = _matching(index, source.query, rows)
            except EtudeError as error:
                problems.append(f"saved search {source.name!r}: {error}")
                continue
            ids = [row["id"] for row in rows if row["id"] in matched]
        found.append((source, ids))
    return Waiting(_alerts_of(found), problems, reader, found, upto)


def _news(connection: Connection, seen: int, upto: int) -> list[dict[str, Any]]:
    """Return the new papers numbered above `seen` up to `upto`, newest first."""
    wanted = (
        select(_paper.c.id, _paper.c.announced, _paper.c.authors)
        .where(_paper.c.number > seen, _paper.c.number <= upto)
        .where(_paper.c.withdrawn.is_not(True))
        .order_by(_paper.c.announced.desc(), _paper.c.number.desc())
        .limit(MOST)
    )
    # Ordered by day, so that the index ends the search at the first row or two.
    latest = connection.execute(
        select(_paper.c.announced)
        .where(_paper.c.number <= seen)
        .order_by(_paper.c.announced.desc())
        .limit(1)
    ).scalar()
    if latest:
        first = date.fromisoformat(latest) - timedelta(days=LATE_DAYS)
        wanted = wanted.where(_paper.c.announced >= first.isoformat())
    rows = [dict(row) for row in connection.execute(wanted).mappings()]
    kinds: dict[str, set[str]] = {}
    for start in range(0, len(rows), CHUNK):
        ids = [row["id"] for row in rows[start : start + CHUNK]]
        listed = select(_listing.c.id, _listing.c.kind).where(_listing.c.id.in_(ids))
        for row in connection.execute(listed):
            kinds.setdefault(row.id, set()).add(row.kind)
    return [row for row in rows if kinds.get(row["id"], {"new"}) & {"new", "cross"}]


def _matching(index: Searches, query: str, rows: list[dict[str, Any]]) -> set[str]:
    if not rows:
        return set()
    since = min(row["announced"] for row in rows)
    found: set[str] = set()
    offset = 0
    while ids := index.search(query, order="newest", most=_PAGE, offset=offset, since=since).ids:
        found.update(ids)
        offset += len(ids)
    return found


def _moved(connection: Connection, reader: Reader, source: _Source, upto: int) -> bool:
    if source.kind == "author":
        return author_shown(connection, reader.name, source.name, source.seen, upto)
    same = (
        (_search.c.user == reader.name)
        & (_search.c.name == source.name)
        & (_search.c.query == source.query)
        & (_search.c.seen == source.seen)
    )
    return connection.execute(update(_search).where(same).values(seen=upto)).rowcount > 0


def _alerts_of(found: list[tuple[_Source, list[str]]]) -> list[Alert]:
    of: dict[str, list[str]] = {}
    for source, ids in found:
        for key in ids:
            of.setdefault(key, []).append(source.name)
    taken: set[str] = set()
    result: list[Alert] = []
    for source, ids in found:
        mine = tuple(key for key in ids if key not in taken)
        taken.update(mine)
        if mine:
            also = {key: tuple(of[key][1:]) for key in mine if len(of[key]) > 1}
            result.append(Alert(source.name, source.kind, mine, also))
    return result
