"""RIS reader and writer, the format of reference managers: tag, two spaces, a hyphen, value.

Tags follow the published list of the format's types and fields (RefMan, 2001 and 2011).
"""

from __future__ import annotations

import re
from typing import Any

from etude.core.errors import PapersError
from etude.papers.exchange.entry import (
    Entry,
    categories_in,
    identifier_in,
    journal_of,
    publisher_doi,
)
from etude.papers.exchange.latex import plain
from etude.papers.exchange.names import split_name
from etude.papers.exchange.reference import reference
from etude.papers.words import shown

_LINE = re.compile(r"([A-Z][A-Z0-9])  ?-(?: (.*))?$")


def write_ris(rows: list[dict[str, Any]]) -> str:
    """Return the records of `rows`, with CRLF line ends as the format requires."""
    return "".join(f"{line}\r\n" for row in rows for line in _record(row))


def _record(row: dict[str, Any]) -> list[str]:
    facts = reference(row)
    kind = ("CPAPER" if facts.proceedings else "JOUR") if facts.journal else "UNPB"
    day = "/".join(f"{part:02}" for part in facts.date)
    fields = [
        ("TY", kind),
        ("ID", facts.key),
        ("TI", plain(facts.title)),
        *(("AU", name.sorted_by) for name in facts.names),
        ("PY", str(facts.year)),
        ("DA", "" if facts.journal else day + "/" * (3 - len(facts.date))),
        ("T2", plain(facts.journal)),
        ("PB", "" if facts.journal else "arXiv"),
        ("AN", f"arXiv:{facts.id}"),
        ("DO", facts.any_doi),
        ("UR", facts.page),
        *(("KW", category) for category in facts.categories),
        ("N1", plain(facts.comment)),
        ("AB", plain(facts.abstract)),
    ]
    return [f"{tag}  - {value}" for tag, value in fields if value] + ["ER  - ", ""]


def read_ris(text: str, name: str) -> list[Entry]:
    """The entries of a RIS file; a line without a tag continues the field above it."""
    entries: list[Entry] = []
    fields: dict[str, list[str]] | None = None
    started, last = 0, ""
    for number, line in enumerate(text.splitlines(), 1):
        match = _LINE.match(line.rstrip())
        if match is None:
            if fields is None and line.strip():
                raise PapersError(
                    f"{name}, line {number}: {shown(line)[:40]!r} is outside a record; "
                    "in RIS a record begins with `TY  - `"
                )
            if fields is not None and last and line.strip():
                fields[last][-1] += f" {line.strip()}"
            continue
        tag, value = match[1], (match[2] or "").strip()
        if tag == "TY":
            if fields is not None:
                raise PapersError(f"{name}, line {number}: the record of line {started} has no ER")
            fields, started = {}, number
        elif fields is None:
            raise PapersError(f"{name}, line {number}: {tag} comes before any TY")
        if tag == "ER":
            entries.append(_entry(fields, f"{name}, line {started}"))
            fields, last = None, ""
        else:
            fields.setdefault(tag, []).append(value)
            last = tag
    if fields is not None:
        raise PapersError(f"{name}, line {started}: this record has no ER; is the file truncated?")
    return entries


def _entry(fields: dict[str, list[str]], place: str) -> Entry:
    def first(*tags: str) -> str:
        return next((shown(fields[tag][0]) for tag in tags if fields.get(tag)), "")

    searched = [
        value
        for tag in ("UR", "DO", "AN", "M1", "L1", "L2", "LK", "N1", "ID", "JO", "JF", "T2", "C1")
        for value in fields.get(tag, [])
    ]
    authors = fields.get("AU") or fields.get("A1") or []
    return Entry(
        place,
        identifier_in(searched),
        title=first("TI", "T1", "CT"),
        authors=tuple(str(split_name(author)) for author in authors if author),
        abstract=first("AB", "N2"),
        categories=categories_in(",".join(fields.get("KW", []))),
        doi=publisher_doi(first("DO")),
        journal_ref=journal_of(first("T2", "JO", "JF")),
        comment=first("N1") or None,
        key=first("ID"),
    )
