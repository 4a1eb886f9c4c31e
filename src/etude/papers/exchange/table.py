"""CSV reader and writer: a row per paper, as in RFC 4180, for spreadsheets.

A spreadsheet runs a cell that begins with `=`, `+`, `-` or `@` as a formula (CSV injection). Such a
cell gets a leading apostrophe, which marks it as text; the reader removes it again.
"""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, cast

from etude.core.errors import PapersError
from etude.papers.exchange.entry import (
    Entry,
    categories_in,
    identifier_in,
    identifier_of,
    journal_of,
    publisher_doi,
)
from etude.papers.exchange.latex import plain
from etude.papers.exchange.names import split_name
from etude.papers.identity import abstract_page
from etude.papers.words import shown

COLUMNS = (
    *("id", "version", "title", "authors", "categories", "published", "updated", "announced"),
    *("replaced", "withdrawn", "comment", "journal_ref", "doi", "licence", "abstract", "summary"),
    *("summary_by", "tags", "url"),
)
# Full-width forms of the same signs also start formulas; white space in front is skipped.
_FORMULA = re.compile(r"'*\s*[=+\-@＝＋－＠|%\t\r]")
# A list of 3,303 authors exceeds Python's default limit of 131,072 characters per cell.
csv.field_size_limit(max(csv.field_size_limit(), 1 << 26))
_NAMES = {
    "id": ("id", "arxiv", "arxiv id", "arxivid"),
    "title": ("title",),
    "authors": ("authors", "author"),
    "abstract": ("abstract", "abstract note"),
    "categories": ("categories", "keywords", "manual tags"),
    "doi": ("doi",),
    "journal_ref": ("journal_ref", "publication title", "source title", "journal"),
    "comment": ("comment", "notes"),
    "tags": ("tags",),
    "key": ("key",),
}


def write_csv(rows: list[dict[str, Any]]) -> str:
    """Return a header line, then a line per row."""
    file = io.StringIO()
    writer = csv.writer(file, quoting=csv.QUOTE_MINIMAL, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow([_safe(_cell(row, name)) for name in COLUMNS])
    return file.getvalue()


def _cell(row: dict[str, Any], name: str) -> str:
    if name == "url":
        return abstract_page(row["id"])
    value = row.get(name)
    if value is None:
        return ""
    if name in {"published", "updated"}:
        return datetime.fromtimestamp(value, UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name == "authors":
        return "; ".join(plain(author).replace(";", ",") for author in value)
    if isinstance(value, list | tuple):
        return "; ".join(map(str, cast("Sequence[Any]", value)))
    return plain(value) if name in {"title", "abstract", "comment"} else shown(str(value))


def _safe(text: str) -> str:
    return f"'{text}" if _FORMULA.match(unicodedata.normalize("NFKC", text)) else text


def _bare(text: str) -> str:
    opened = text.startswith("'") and _FORMULA.match(unicodedata.normalize("NFKC", text))
    return text[1:] if opened else text


def read_csv(text: str, name: str) -> list[Entry]:
    """Return the entries of a CSV file with a header line, written by Etude or others."""
    if "\0" in text:
        raise PapersError(f"{name}: contains a zero byte; this is not a text file")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    entries: list[Entry] = []
    try:
        heads = [head.strip().lower() for head in next(reader, list[str]())]
        if not {"id", "title", "doi", "url", "arxiv", "arxiv id"} & set(heads):
            raise PapersError(
                f"{name}, line 1: no column is named id, title, doi or url; "
                "the first line of a CSV file must name its columns"
            )
        line = reader.line_num + 1
        for cells in reader:
            if any(cells):
                if len(cells) > len(heads):
                    raise PapersError(
                        f"{name}, line {line}: {len(cells)} cells in {len(heads)} columns"
                    )
                row = dict(zip(heads, map(_bare, cells), strict=False))
                entries.append(_entry(row, f"{name}, line {line}"))
            line = reader.line_num + 1
    except csv.Error as error:
        raise PapersError(f"{name}, line {reader.line_num}: not valid CSV: {error}") from error
    return entries


def _entry(row: dict[str, str], place: str) -> Entry:
    def of(name: str) -> str:
        return next((shown(row[key]) for key in _NAMES[name] if row.get(key, "").strip()), "")

    found = identifier_of(of("id")) if of("id") else None
    searched = [value for key, value in row.items() if key not in {"title", "abstract", "summary"}]
    authors = [shown(author) for author in of("authors").split(";")]
    return Entry(
        place,
        found or identifier_in(searched),
        title=of("title"),
        authors=tuple(str(split_name(author)) for author in authors if author),
        abstract=of("abstract"),
        categories=categories_in(of("categories")),
        doi=publisher_doi(of("doi")),
        journal_ref=journal_of(of("journal_ref")),
        comment=of("comment") or None,
        key=of("key"),
        tags=tuple(tag.strip() for tag in of("tags").split(";") if tag.strip()),
    )
