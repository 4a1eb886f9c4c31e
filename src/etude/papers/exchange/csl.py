"""CSL-JSON reader and writer, the format of Zotero, pandoc and citation processors.

Fields and types: https://docs.citationstyles.org/en/stable/specification.html, version 1.0.2, in
which a preprint has the type `article`.
"""

from __future__ import annotations

import json
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
from etude.papers.exchange.names import Name
from etude.papers.exchange.reference import Reference, reference
from etude.papers.words import shown

_TEXTS = ("DOI", "URL", "number", "archive_location", "note", "container-title", "id", "volume")


def write_csl(rows: list[dict[str, Any]]) -> str:
    """Return the items of `rows`, one per line."""
    items = [json.dumps(_item(reference(row)), ensure_ascii=False) for row in rows]
    return "[\n" + ",\n".join(items) + "\n]\n"


def _item(facts: Reference) -> dict[str, Any]:
    kind = "paper-conference" if facts.proceedings else "article-journal"
    item: dict[str, Any] = {
        "id": facts.key,
        "type": kind if facts.journal else "article",
        "title": plain(facts.title),
        "author": [_author(name) for name in facts.names],
        "issued": {"date-parts": [[facts.year] if facts.journal else list(facts.date)]},
        "abstract": plain(facts.abstract),
        "DOI": facts.any_doi,
        "URL": facts.page,
        "number": f"arXiv:{facts.id}",
        "publisher": "arXiv",
        "keyword": ", ".join(facts.categories),
    }
    if facts.journal:
        item["container-title"] = plain(facts.journal)
        # A number and a publisher would be printed as the journal's own.
        del item["publisher"], item["number"]
        item["archive"], item["archive_location"] = "arXiv", f"arXiv:{facts.id}"
    if facts.version:
        item["version"] = str(facts.version)
    if facts.comment:
        item["note"] = plain(facts.comment)
    return item


def _author(name: Name) -> dict[str, str]:
    if name.literal:
        return {"literal": name.literal}
    parts = {
        "family": name.family,
        "given": name.given,
        "non-dropping-particle": name.particle,
        "suffix": name.suffix,
    }
    return {key: value for key, value in parts.items() if value}


def read_csl(content: Any, name: str) -> list[Entry]:
    """Return the entries of decoded CSL-JSON: a list of items, or `{"items": [...]}`."""
    items = cast("dict[str, Any]", content).get("items") if isinstance(content, dict) else content
    if not isinstance(items, list):
        raise PapersError(f"{name}: expected a list of items (CSL-JSON)")
    return [_read(item, f"{name}, item {number}") for number, item in enumerate(_list(items), 1)]


def _list(value: Any) -> list[Any]:
    return cast("list[Any]", value) if isinstance(value, list) else []


def _read(item: Any, place: str) -> Entry:
    if not isinstance(item, dict):
        raise PapersError(f"{place} must be an object with a title, as each item of CSL-JSON")
    fields = cast("dict[str, Any]", item)
    texts = {key: str(fields[key]) for key in _TEXTS if isinstance(fields.get(key), str | int)}
    found = identifier_in(texts.values()) or identifier_of(
        texts.get("number", ""), str(fields.get("publisher") or fields.get("archive") or "none")
    )
    authors = [_read_author(author, place) for author in _list(fields.get("author"))]
    return Entry(
        place,
        found,
        title=_text(fields, "title", place),
        authors=tuple(filter(None, authors)),
        abstract=_text(fields, "abstract", place),
        doi=publisher_doi(texts.get("DOI", "")),
        journal_ref=journal_of(_text(fields, "container-title", place)),
        comment=_text(fields, "note", place) or None,
        key=texts.get("id", ""),
        categories=categories_in(str(fields.get("keyword") or "")),
    )


def _text(fields: dict[str, Any], key: str, place: str) -> str:
    value = fields.get(key)
    if value is None:
        return ""
    if not isinstance(value, str | int | float):
        raise PapersError(f"{place}: {key!r} should be a string")
    return shown(str(value))


def _read_author(author: Any, place: str) -> str:
    if not isinstance(author, dict):
        raise PapersError(f"{place}: an author should be an object with family and given names")
    parts = {key: shown(str(value)) for key, value in cast("dict[str, Any]", author).items()}
    if parts.get("literal"):
        return parts["literal"]
    particle = " ".join(
        filter(None, (parts.get("dropping-particle"), parts.get("non-dropping-particle")))
    )
    return str(
        Name(parts.get("family", ""), parts.get("given", ""), particle, parts.get("suffix", ""))
    )
