"""Etude's own JSON format: lossless export and import of a library.

    {"format": "etude-papers", "version": 1, "papers": [row, ...], "reader": {...} or null}

A row has the columns of the library's table, except those that count within one database, and
`listings`, pairs of day and kind. It also has the version and datestamp of each field's source
(`basis`): a row is imported as sightings, so that the library's merge rule decides between them and
its own content, and an import restores the exact state.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any, cast

from sqlalchemy import select

from etude.core.errors import PapersError
from etude.papers.exchange.entry import Entry
from etude.papers.identity import parse_identifier
from etude.papers.library import CHUNK, Library
from etude.papers.record import Announcement, Sighting
from etude.papers.words import shown
from etude.store.papers import Listing

FORMAT, VERSION = "etude-papers", 1
_DECIDED = ("updated", "comment", "journal_ref", "doi", "licence", "withdrawn")
_KINDS: dict[str, tuple[type, ...]] = {
    "title": (str,),
    "abstract": (str,),
    "authors": (list,),
    "categories": (list,),
    "version": (int,),
    "published": (int, float),
    "updated": (int, float),
    "comment": (str,),
    "journal_ref": (str,),
    "doi": (str,),
    "licence": (str,),
    "datestamp": (str,),
    "announced": (str,),
    "replaced": (str,),
    "withdrawn": (bool,),
    "basis": (dict,),
    "first_seen": (int, float),
    "summary": (str,),
    "summary_by": (str,),
    "listings": (list,),
    "tags": (list,),
}
_NEEDED = {"title", "abstract", "authors", "categories"}


def with_listings(library: Library, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return rows of `Library.get_many`, each with its `listings` as in `Library.get`."""
    keys = [row["id"] for row in rows]
    days: dict[str, list[tuple[str, str]]] = {}
    with library.engine.connect() as connection:
        for start in range(0, len(keys), CHUNK):
            statement = select(Listing.id, Listing.day, Listing.kind).where(
                Listing.id.in_(keys[start : start + CHUNK])
            )
            for key, day, kind in connection.execute(statement.order_by(Listing.day)):
                days.setdefault(key, []).append((day, kind))
    return [{**row, "listings": days.get(row["id"], [])} for row in rows]


def write_json(rows: Sequence[Mapping[str, Any]], reader: dict[str, Any] | None = None) -> str:
    """Return the document of `rows` and the export `reader`, one paper per line."""
    papers = [
        json.dumps(
            {key: value for key, value in row.items() if key == "id" or key in _KINDS},
            ensure_ascii=False,
        )
        for row in rows
    ]
    head = f'{{"format": "{FORMAT}", "version": {VERSION}, "papers": [\n'
    tail = json.dumps(reader, ensure_ascii=False)
    return head + ",\n".join(papers) + f'\n], "reader": {tail}}}\n'


def decoded(text: str, name: str) -> Any:
    """Parse JSON; raise a PapersError with the place of a syntax error."""
    try:
        return json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise PapersError(
            f"{name}, line {error.lineno}, column {error.colno}: not valid JSON: {error.msg}"
        ) from error
    except RecursionError as error:
        raise PapersError(f"{name}: brackets are nested too deeply") from error
    except ValueError as error:
        raise PapersError(f"{name}: not valid JSON: {error}") from error


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is not a JSON number")


def read_json(content: Any, name: str) -> tuple[list[Entry], dict[str, Any] | None]:
    """Return the papers and the reader of a decoded document."""
    if not isinstance(content, dict) or cast("dict[str, Any]", content).get("format") != FORMAT:
        raise PapersError(f'{name}: not by Etude, whose files begin with "format": "{FORMAT}"')
    document = cast("dict[str, Any]", content)
    version = document.get("version")
    if not isinstance(version, int) or version < 1:
        raise PapersError(f"{name}: 'version' should be a positive integer")
    if version > VERSION:
        raise PapersError(
            f"{name}: version {version} is of a newer Etude; this one reads up to {VERSION}"
        )
    papers, reader = document.get("papers"), document.get("reader")
    if not isinstance(papers, list):
        raise PapersError(f"{name}: 'papers' should be a list")
    if reader is not None and not isinstance(reader, dict):
        raise PapersError(f"{name}: 'reader' should be an object or null")
    entries = [
        _entry(paper, f"{name}, paper {number}")
        for number, paper in enumerate(cast("list[Any]", papers), 1)
    ]
    return entries, cast("dict[str, Any] | None", reader)


def _entry(paper: Any, place: str) -> Entry:
    if not isinstance(paper, dict):
        raise PapersError(f"{place} is not an object")
    row = cast("dict[str, Any]", paper)
    try:
        identifier = parse_identifier(str(row.get("id")))
    except ValueError as error:
        raise PapersError(f"{place}: {error}") from error
    where = f"{place} ({identifier.id})"
    for key, kinds in _KINDS.items():
        value = row.get(key)
        if value is None and key not in _NEEDED:
            continue
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise PapersError(f"{where}: {key!r} has the invalid value {shown(repr(value))[:40]}")
    for key in ("authors", "categories", "tags"):
        if not all(isinstance(one, str) for one in cast("list[Any]", row.get(key) or [])):
            raise PapersError(f"{where}: {key!r} should be a list of strings")
    try:
        seen = tuple(_sightings({**row, "id": identifier.id}))
    except (ValueError, TypeError, IndexError, AttributeError, OverflowError, OSError) as error:
        raise PapersError(f"{where}: malformed days or versions: {error}") from error
    return Entry(
        place,
        identifier,
        title=row["title"],
        authors=tuple(row["authors"]),
        abstract=row["abstract"],
        categories=tuple(row["categories"]),
        doi=row.get("doi"),
        journal_ref=row.get("journal_ref"),
        comment=row.get("comment"),
        tags=tuple(row.get("tags") or ()),
        sightings=seen,
        row=row,
    )


def _sightings(row: dict[str, Any]) -> list[Sighting]:
    """Return the sightings that produce this row."""
    bases = cast("dict[str, list[Any]]", row.get("basis") or {})
    main = bases.get("") or [row.get("version") or 0, "", row.get("updated") or 0.0]
    apart = {name: basis for name, basis in bases.items() if name in _DECIDED}
    text = Sighting(
        row["id"],
        row["title"],
        row["abstract"],
        tuple(row["authors"]),
        tuple(row["categories"]),
    )
    first = replace(
        _at(text, main),
        published=_moment(row.get("published")),
        **{name: row.get(name) for name in _DECIDED if name not in apart and name != "updated"},
    )
    if "updated" not in apart:
        first = replace(first, updated=_moment(row.get("updated")))
    found = [first]
    for name, basis in apart.items():
        told: dict[str, Any] = {} if name == "updated" else {name: row.get(name)}
        found.append(replace(_at(text, basis), **told))
    if row.get("datestamp") and row["datestamp"] != main[1]:
        found.append(replace(text, datestamp=date.fromisoformat(row["datestamp"])))
    if row.get("version") and row["version"] != main[0]:
        found.append(replace(text, version=row["version"]))
    for day, kind in cast("list[tuple[str, str]]", row.get("listings") or []):
        found.append(
            replace(first, announced=date.fromisoformat(day), announcement=Announcement(kind))
        )
    return found


def _at(text: Sighting, basis: list[Any]) -> Sighting:
    version, datestamp, updated = basis
    return replace(
        text,
        version=int(version) or None,
        datestamp=date.fromisoformat(datestamp) if datestamp else None,
        updated=_moment(updated or None),
    )


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def restore(library: Library, entries: Sequence[Entry]) -> int:
    """Store `entries` in `library`, with their summaries; return the number of papers.

    A paper new to the library keeps the file's time of first sight.
    """
    groups: dict[float | None, list[Entry]] = {}
    for entry in entries:
        if entry.seen():
            seen = (entry.row or {}).get("first_seen")
            groups.setdefault(seen, []).append(entry)
    count = 0
    for moment, group in groups.items():
        at = library if moment is None else Library(library.engine, clock=_always(moment))
        for start in range(0, len(group), CHUNK):
            part = group[start : start + CHUNK]
            at.put([sighting for entry in part for sighting in entry.seen()])
            count += len({entry.identifier for entry in part})
            _summaries(library, part)
    return count


def _always(moment: float) -> Any:
    return lambda: moment


def _summaries(library: Library, entries: Sequence[Entry]) -> None:
    rows = {
        entry.row["id"]: entry.row for entry in entries if entry.row and entry.row.get("summary")
    }
    found: list[tuple[str, str, str]] = []
    for row in library.get_many(list(rows)):
        old = rows[row["id"]]
        # A summary belongs to an abstract: it is not restored for another one.
        if row["summary"] is None and row["abstract"] == old["abstract"]:
            found.append((row["id"], old["summary"], old.get("summary_by") or "import"))
    library.set_summaries(found)
