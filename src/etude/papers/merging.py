"""Merging of sightings: one record from what several sources report about a paper.

Each field takes the value of the sighting of the highest version that knows it; at one version,
that of the latest datestamp, then that of the latest date of the version. Categories of one version
are joined, since a cross-list adds one without a new version. The first day of listing decides
"new". Each rule takes a maximum, a minimum or a union, so the same sightings leave the same record
in any order and however often they come.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from etude.papers.identity import month_of
from etude.papers.record import Sighting

DECIDED = (
    *("title", "abstract", "authors", "updated", "comment", "journal_ref"),
    *("doi", "licence", "withdrawn"),
)
"""Fields taken from the highest version."""


def _seconds(moment: datetime | None) -> float | None:
    return None if moment is None else moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()


def fresh(sighting: Sighting, now: float) -> dict[str, Any]:
    """Return the record of a new paper; `now` is in seconds since 1970."""
    return {
        "id": sighting.id,
        "version": sighting.version,
        "title": sighting.title,
        "abstract": sighting.abstract,
        "authors": list(sighting.authors),
        "categories": list(dict.fromkeys(sighting.categories)),
        "published": _seconds(sighting.published),
        "updated": _seconds(sighting.updated),
        "comment": sighting.comment,
        "journal_ref": sighting.journal_ref,
        "doi": sighting.doi,
        "licence": sighting.licence,
        "datestamp": sighting.datestamp.isoformat() if sighting.datestamp else None,
        "announced": "",
        "replaced": None,
        "withdrawn": sighting.withdrawn,
        "basis": {"": _basis(sighting)},
        "first_seen": now,
        "revision": 0,
        "summary": None,
        "summary_by": None,
    }


def _basis(sighting: Sighting) -> list[Any]:
    """Return the precedence of a sighting: version, datestamp, date of the version."""
    return [
        sighting.version or 0,
        sighting.datestamp.isoformat() if sighting.datestamp else "",
        _seconds(sighting.updated) or 0.0,
    ]


def merged_with(old: dict[str, Any], sighting: Sighting) -> dict[str, Any]:
    """Return the record merged with a sighting; the order of sightings does not matter."""
    new = fresh(sighting, old["first_seen"])
    merged = dict(old)
    main = max(old["basis"][""], new["basis"][""])
    basis = {"": main}
    for name in DECIDED:
        candidates = [
            (row["basis"].get(name, row["basis"][""]), row[name])
            for row in (old, new)
            if row[name] is not None
        ]
        if not candidates:
            continue
        # The value itself is the last tie-breaker, so that the result is deterministic.
        of, merged[name] = max(candidates, key=lambda pair: (pair[0], _order(pair[1])))
        if of != main:
            basis[name] = of
    merged["basis"] = basis
    merged["version"] = _highest(old["version"], new["version"])
    merged["datestamp"] = _highest(old["datestamp"], new["datestamp"])
    dates = [row["published"] for row in (old, new) if row["published"] is not None]
    merged["published"] = min(dates, default=None)
    merged["categories"] = _categories(old, new)
    if (merged["abstract"], merged["title"]) != (old["abstract"], old["title"]):
        merged["summary"] = merged["summary_by"] = None
    return merged


def _categories(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    versions = (old["version"] or 0, new["version"] or 0)
    if versions[0] != versions[1]:
        return list((old if versions[0] > versions[1] else new)["categories"])
    first = max(
        (row["basis"].get("categories", row["basis"][""]), row["categories"][:1])
        for row in (old, new)
    )[1]
    return [*first, *sorted({*old["categories"], *new["categories"]} - set(first))]


def _highest(first: Any, second: Any) -> Any:
    return max((value for value in (first, second) if value is not None), default=None)


def _day_of(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).date().isoformat()


def _order(value: Any) -> Any:
    return [value] if isinstance(value, list) else value


def set_days(row: dict[str, Any], days: dict[str, str], now: float) -> None:
    """Set the days of `row` that follow from its listings, given as kind by day."""
    first = [day for day, kind in days.items() if kind in {"new", "cross"}] or list(days)
    if first:
        row["announced"] = min(first)
    elif row["published"] is not None:
        row["announced"] = _day_of(row["published"])
    else:
        # An id begins with its month: an imported reference of 2017 is old.
        seen = _day_of(row["first_seen"] or now)
        month = month_of(row["id"])
        row["announced"] = seen if seen.startswith(month) else min(seen, f"{month}-01")
    again = [day for day, kind in days.items() if kind.startswith("replace")]
    row["replaced"] = max(again, default=None)
