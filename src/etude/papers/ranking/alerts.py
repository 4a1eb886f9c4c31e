"""News of saved searches and of followed authors, each shown once.

News are papers that came after those which were there when news were last shown. A new version is
no news, nor is an old paper that comes with a replacement or a back-fill. A search remembers the
number of the newest paper that it has looked at, and the number moves only from where it was: of
two programs that look at the same time, one shows what is new.
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
"""A paper announced so long before the newest that was there is a back-fill, not news."""
MOST = 20_000
"""Newest papers that are looked at in one go."""
_PAGE = 500

_paper = cast("Table", tables.Paper.__table__)
_listing = cast("Table", tables.Listing.__table__)
_search = cast("Table", tables.SavedSearch.__table__)


class Found(Protocol):
    """What a search gives; only its ids are read."""

    @property
    def ids(self) -> Sequence[str]:
        """Of the papers found."""
        ...


class Searches(Protocol):
    """The part of `etude.papers.search.Index` that is used here."""

    def refresh(self) -> int:
        """Take in what the library has."""
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
        """Find papers, the newest first."""
        ...


@dataclass(frozen=True)
class Alert:
    """New papers of one saved search or followed author."""

    name: str
    """Of the search or author."""
    kind: Literal["search", "author"]
    ids: tuple[str, ...]
    """Newest first; a paper that several would show stands in the first of them."""
    also: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    """By id, names of the other searches and authors that a paper is news of."""


@dataclass(frozen=True)
class _Source:
    name: str
    kind: Literal["search", "author"]
    query: str
    seen: int


@dataclass(frozen=True)
class Waiting:
    """News that were not shown yet.

    Attributes:
        alerts: what there is to show.
        problems: one line for each search that could not be made; its news wait.
    """

    alerts: list[Alert]
    problems: list[str]
    _reader: Reader
    _found: list[tuple[_Source, list[str]]]
    _upto: int

    def shown(self) -> list[Alert]:
        """Keep that these were shown; returns those that nobody else has shown meanwhile.

        Call it when they have reached the person: until then they are found again.
        """
        with self._reader.engine.begin() as connection:
            mine = [
                (source, ids)
                for source, ids in self._found
                if _moved(connection, self._reader, source, self._upto)
            ]
        return _alerts_of(mine)


def alerts(reader: Reader, library: Library, index: Searches) -> list[Alert]:
    """What is new since the last call, for this reader; each paper once.

    Where showing can fail, as sending mail can, use `waiting` and tell it when it was done.

    Args:
        reader: whose searches and authors.
        library: where the papers are.
        index: finds papers by a saved search; it is refreshed first.
    """
    return waiting(reader, library, index).shown()


def waiting(reader: Reader, library: Library, index: Searches) -> Waiting:
    """What `alerts` would give, not counted as shown yet."""
    with library.engine.connect() as connection:
        # Before the index is refreshed: what comes meanwhile is news of the next time.
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
    if any(source.kind == "search" and candidates[source.seen] for source in sources):
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
    """Papers numbered above `seen` and up to `upto` that are news, the newest first."""
    wanted = (
        select(_paper.c.id, _paper.c.announced, _paper.c.authors)
        .where(_paper.c.number > seen, _paper.c.number <= upto)
        .where(_paper.c.withdrawn.is_not(True))
        .order_by(_paper.c.announced.desc(), _paper.c.number.desc())
        .limit(MOST)
    )
    # In the order of days, so that an index of them ends the search at the first row or two.
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
