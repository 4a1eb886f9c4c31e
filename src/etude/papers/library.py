"""Library of papers: merges the sightings of all sources into one record per paper.

The unversioned id is the key; `merging` combines all sightings of a paper. Every listing is stored,
and the first day decides when a paper was new. Each change gets the next revision, an increasing
number by which indexes and other consumers find changes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import Connection, Engine, bindparam, func, insert, select, tuple_, update

from etude.papers.merging import fresh, merged_with, set_days
from etude.papers.record import Announcement, Sighting
from etude.store import papers as tables
from etude.store.upsert import insert_or_ignore, insert_or_update

if TYPE_CHECKING:
    from sqlalchemy import Table

CHUNK = 500
"""Ids per SQL statement: old builds of SQLite allow 999 parameters."""
_MOST_READ = 20_000
"""Papers that are scanned for a rare category."""

_paper = cast("Table", tables.Paper.__table__)
_listing = cast("Table", tables.Listing.__table__)
_marks = cast("Table", tables.Mark.__table__)
_COLUMNS = [column.name for column in _paper.columns if column.name != "number"]

Lister = Callable[[Mapping[str, Any], Collection[str]], tuple[str, str] | None]
"""Returns day and kind of an additional listing, from a record and its kinds of listings."""


@dataclass(frozen=True, slots=True)
class StoreResult:
    """Result of storing sightings."""

    added: int = 0
    changed: int = 0
    same: int = 0

    def __add__(self, other: StoreResult) -> StoreResult:
        return StoreResult(
            self.added + other.added, self.changed + other.changed, self.same + other.same
        )


class Library:
    """The papers of one database."""

    def __init__(self, engine: Engine, *, clock: Callable[[], float] = time.time) -> None:
        """Use the tables of `engine`; `clock` returns seconds since 1970."""
        self.engine = engine
        self._clock = clock

    def put(self, sightings: Sequence[Sighting]) -> StoreResult:
        """Store `sightings` in one transaction: all of them, or none on failure."""
        with self.engine.begin() as connection:
            return self.put_in(connection, sightings)

    def put_in(
        self,
        connection: Connection,
        sightings: Sequence[Sighting],
        listing: Callable[[Mapping[str, Any], Collection[str]], tuple[str, str] | None]
        | None = None,
    ) -> StoreResult:
        """Store `sightings` in the caller's transaction, for example with its progress.

        Args:
            connection: connection in a transaction.
            sightings: what to store.
            listing: returns an additional listing of each merged record, or None.
        """
        # The counter comes first: it takes the write lock, which serialises concurrent writers.
        revision = _next_revision(connection)
        now = self._clock()
        stored = self._stored(connection, {sighting.id for sighting in sightings})
        before = {key: dict(row) for key, row in stored.items()}
        days: dict[str, dict[str, str]] = {}
        for key, day, kind in _listings(connection, list(stored)):
            days.setdefault(key, {})[day] = kind
        known = {key: dict(of) for key, of in days.items()}
        for sighting in sightings:
            row = stored.get(sighting.id)
            stored[sighting.id] = (
                fresh(sighting, now) if row is None else merged_with(row, sighting)
            )
            if sighting.announced is not None:
                kind = (sighting.announcement or Announcement.NEW).value
                of = days.setdefault(sighting.id, {})
                day = sighting.announced.isoformat()
                of[day] = min(of.get(day, kind), kind, key=_KINDS.index)
        added: list[dict[str, Any]] = []
        changed: list[dict[str, Any]] = []
        for key, row in stored.items():
            if listing and (more := listing(row, days.get(key, {}).values())):
                day, kind = more
                of = days.setdefault(key, {})
                of[day] = kind if kind == _KINDS[0] else of.get(day, kind)
            set_days(row, days.get(key, {}), now)
            if row == before.get(key):
                continue
            row["revision"] = revision
            (changed if key in before else added).append(row)
        if added:
            connection.execute(
                insert(_paper), [{name: row[name] for name in _COLUMNS} for row in added]
            )
        if changed:
            statement = update(_paper).where(_paper.c.id == bindparam("of"))
            values: dict[str, Any] = {name: bindparam(name) for name in _COLUMNS if name != "id"}
            connection.execute(
                statement.values(values), [{**row, "of": row["id"]} for row in changed]
            )
        new = [
            {"id": key, "day": day, "kind": kind}
            for key, of in days.items()
            for day, kind in of.items()
            if known.get(key, {}).get(day) != kind
        ]
        if new:
            insert_or_update(connection, _listing, new, columns=["kind"])
        return StoreResult(len(added), len(changed), len(before) - len(changed))

    @staticmethod
    def _stored(connection: Connection, keys: set[str]) -> dict[str, dict[str, Any]]:
        wanted = sorted(keys)
        return {
            row["id"]: {name: row[name] for name in _COLUMNS}
            for start in range(0, len(wanted), CHUNK)
            for row in connection.execute(
                select(_paper).where(_paper.c.id.in_(wanted[start : start + CHUNK]))
            ).mappings()
        }

    def get(self, paper_id: str) -> dict[str, Any] | None:
        """Return the record of an unversioned id, with `listings` (day, kind), or None."""
        with self.engine.connect() as connection:
            row = self._stored(connection, {paper_id}).get(paper_id)
            if row is not None:
                row["listings"] = [tuple(found[1:]) for found in _listings(connection, [paper_id])]
            return row

    def get_many(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        """Return the known records of `ids`, in their order."""
        with self.engine.connect() as connection:
            found = self._stored(connection, set(ids))
        return [found[key] for key in ids if key in found]

    def newest(
        self, categories: Collection[str] | None = None, *, most: int = 200
    ) -> list[dict[str, Any]]:
        """Return up to `most` papers of any of `categories`, latest announcement first.

        A new version does not change a paper's place: it keeps the day on which it was new.
        """
        wanted = None if categories is None else set(categories)
        found: list[dict[str, Any]] = []
        columns = _paper.c
        with self.engine.connect() as connection:
            for start in range(0, _MOST_READ, CHUNK):
                statement = select(columns.id, columns.categories)
                statement = statement.order_by(columns.announced.desc(), columns.number.desc())
                rows = connection.execute(statement.offset(start).limit(CHUNK)).all()
                keys = [row.id for row in rows if wanted is None or wanted & set(row.categories)]
                found += self.get_many(keys[: most - len(found)])
                if len(found) >= most or len(rows) < CHUNK:
                    break
        return found

    def day(self, day: str) -> list[dict[str, Any]]:
        """Return the papers listed on `day` with their `kind`: new ones first, newest ids first."""
        with self.engine.connect() as connection:
            kinds = {
                row.id: row.kind
                for row in connection.execute(select(_listing).where(_listing.c.day == day))
            }
            rows = self._stored(connection, set(kinds))
        found = [{**row, "kind": kinds[key]} for key, row in rows.items()]
        found.sort(key=lambda row: row["id"], reverse=True)
        found.sort(key=lambda row: _KINDS.index(row["kind"]))
        return found

    def listings_since(
        self, revision: int, until: int, *, page: int = 5000
    ) -> Iterator[list[dict[str, Any]]]:
        """Return papers changed after `revision` up to `until`, with dates and `kinds` of listings.

        Only `id`, `published`, `datestamp`, `categories` and `revision` are included, so a million
        of them take seconds.
        """
        columns = [_paper.c[name] for name in ("id", "published", "datestamp", "categories")]
        after = (revision, 0)
        while True:
            with self.engine.connect() as connection:
                found = connection.execute(
                    select(*columns, _paper.c.revision, _paper.c.number)
                    .where(
                        tuple_(_paper.c.revision, _paper.c.number) > after,
                        _paper.c.revision <= until,
                    )
                    .order_by(_paper.c.revision, _paper.c.number)
                    .limit(page)
                ).mappings()
                rows: list[dict[str, Any]] = [{**row, "kinds": set[str]()} for row in found]
                by_id = {row["id"]: row for row in rows}
                for listing in _listings(connection, list(by_id)):
                    by_id[listing.id]["kinds"].add(listing.kind)
            if not rows:
                return
            yield rows
            after = (rows[-1]["revision"], rows[-1]["number"])

    def announce(self, listings: Sequence[tuple[str, str, str]]) -> None:
        """Add listings (id, day, kind) of known papers in one transaction."""
        if not listings:
            return
        keys = list(dict.fromkeys(key for key, _, _ in listings))
        with self.engine.begin() as connection:
            revision = _next_revision(connection)
            rows = [{"id": key, "day": day, "kind": kind} for key, day, kind in listings]
            # The first of the kinds takes precedence over the others of that day.
            new = [row for row in rows if row["kind"] == _KINDS[0]]
            insert_or_update(connection, _listing, new, columns=["kind"])
            rest = [row for row in rows if row["kind"] != _KINDS[0]]
            insert_or_ignore(connection, _listing, rest)
            days: dict[str, dict[str, str]] = {}
            for key, day, kind in _listings(connection, keys):
                days.setdefault(key, {})[day] = kind
            dated: list[dict[str, Any]] = []
            for key, of in days.items():
                row: dict[str, Any] = {"of": key, "revision": revision}
                set_days(row, of, 0.0)
                dated.append(row)
            names = ("announced", "replaced", "revision")
            connection.execute(
                update(_paper)
                .where(_paper.c.id == bindparam("of"))
                .values({name: bindparam(name) for name in names}),
                dated,
            )

    def days_beside(self, day: str) -> tuple[str | None, str | None]:
        """Return the last day with new papers before `day`, and the first after it."""
        new = _listing.c.kind.in_([Announcement.NEW.value, Announcement.CROSS.value])
        before = select(func.max(_listing.c.day)).where(new, _listing.c.day < day)
        after = select(func.min(_listing.c.day)).where(new, _listing.c.day > day)
        with self.engine.connect() as connection:
            return connection.execute(before).scalar(), connection.execute(after).scalar()

    def last_day(self) -> str | None:
        """Return the latest day with listings."""
        with self.engine.connect() as connection:
            return connection.execute(select(func.max(_listing.c.day))).scalar()

    def last_datestamp(self) -> str | None:
        """Return the latest OAI-PMH datestamp."""
        with self.engine.connect() as connection:
            return connection.execute(select(func.max(_paper.c.datestamp))).scalar()

    def count(self) -> int:
        """Return the number of papers."""
        with self.engine.connect() as connection:
            return connection.execute(select(func.count()).select_from(_paper)).scalar_one()

    def revision(self) -> int:
        """Return the revision of the last change, 0 before the first."""
        return int(self.mark("revision") or 0)

    def changed_since(self, revision: int) -> int:
        """Return the number of papers changed after `revision`."""
        with self.engine.connect() as connection:
            return connection.execute(
                select(func.count()).select_from(_paper).where(_paper.c.revision > revision)
            ).scalar_one()

    def since(self, revision: int, *, page: int = 2000) -> Iterator[list[dict[str, Any]]]:
        """Yield papers changed after `revision`, oldest change first, in pages; for indexes.

        A change during the iteration may appear twice, and is never missed.
        """
        after = (revision, 0)
        while True:
            with self.engine.connect() as connection:
                rows = [
                    dict(row)
                    for row in connection.execute(
                        select(_paper)
                        .where(
                            (_paper.c.revision > after[0])
                            | ((_paper.c.revision == after[0]) & (_paper.c.number > after[1]))
                            if after[1]
                            else _paper.c.revision > after[0]
                        )
                        .order_by(_paper.c.revision, _paper.c.number)
                        .limit(page)
                    ).mappings()
                ]
            if not rows:
                return
            yield rows
            after = (rows[-1]["revision"], rows[-1]["number"])

    def set_summaries(
        self,
        summaries: Iterable[tuple[str, str, str]],
        *,
        made_of: Mapping[str, tuple[str, str]] | None = None,
    ) -> None:
        """Store summaries: (id, text, how it was made).

        Args:
            summaries: one per paper.
            made_of: title and abstract by id; papers with other texts by now are skipped.
        """
        rows = [{"of": key, "text": text, "how": how} for key, text, how in summaries]
        if not rows:
            return
        statement = update(_paper).where(_paper.c.id == bindparam("of"))
        if made_of is not None:
            statement = statement.where(
                _paper.c.title == bindparam("was_title"),
                _paper.c.abstract == bindparam("was_abstract"),
            )
            for row in rows:
                row["was_title"], row["was_abstract"] = made_of[row["of"]]
        with self.engine.begin() as connection:
            connection.execute(
                statement.values(summary=bindparam("text"), summary_by=bindparam("how")), rows
            )

    def mark(self, key: str) -> Any:
        """Return the value stored by `set_mark`, or None."""
        with self.engine.connect() as connection:
            return connection.execute(select(_marks.c.value).where(_marks.c.key == key)).scalar()

    def set_mark(self, key: str, value: Any, connection: Connection | None = None) -> None:
        """Store a value under a key, in the caller's transaction if given."""
        if connection is None:
            with self.engine.begin() as own:
                return self.set_mark(key, value, own)
        # One statement, so that two concurrent first writes do not collide.
        insert_or_update(connection, _marks, [{"key": key, "value": value}], columns=["value"])
        return None


_KINDS = [kind.value for kind in Announcement]


def _next_revision(connection: Connection) -> int:
    # No portable SQL increments JSON in place: lock the row by a write, then read it.
    connection.execute(update(_marks).where(_marks.c.key == "revision").values(key="revision"))
    value = int(
        connection.execute(select(_marks.c.value).where(_marks.c.key == "revision")).scalar_one()
    )
    connection.execute(update(_marks).where(_marks.c.key == "revision").values(value=value + 1))
    return value + 1


def _listings(connection: Connection, keys: list[str]) -> Iterator[Any]:
    for start in range(0, len(keys), CHUNK):
        yield from connection.execute(
            select(_listing.c.id, _listing.c.day, _listing.c.kind)
            .where(_listing.c.id.in_(keys[start : start + CHUNK]))
            .order_by(_listing.c.day)
        )
