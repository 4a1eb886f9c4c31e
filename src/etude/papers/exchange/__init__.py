"""Import and export of papers: BibTeX, CSL-JSON, RIS, CSV, and Etude's lossless JSON."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from etude.core.errors import PapersError, did_you_mean
from etude.papers.exchange.bibtex import write_bibtex
from etude.papers.exchange.bibtex_reader import read_bibtex
from etude.papers.exchange.csl import read_csl, write_csl
from etude.papers.exchange.entry import Entry
from etude.papers.exchange.ris import read_ris, write_ris
from etude.papers.exchange.table import read_csv, write_csv
from etude.papers.exchange.whole import decoded, read_json, write_json
from etude.papers.record import Sighting

FORMATS = ("bibtex", "csl-json", "ris", "csv", "json")
SUFFIXES = {"bibtex": ".bib", "csl-json": ".json", "ris": ".ris", "csv": ".csv", "json": ".json"}
_WRITERS = {"bibtex": write_bibtex, "csl-json": write_csl, "ris": write_ris, "csv": write_csv}


@dataclass(frozen=True, slots=True)
class Contents:
    """Contents of a file."""

    entries: tuple[Entry, ...]
    reader: dict[str, Any] | None = None
    """Result of `Reader.export`; only in Etude's JSON."""

    @property
    def ids(self) -> list[str]:
        """Return the distinct unversioned ids, in the file's order."""
        found = (entry.identifier.id for entry in self.entries if entry.identifier is not None)
        return list(dict.fromkeys(found))

    @property
    def unknown(self) -> list[Entry]:
        """Return the entries without an arXiv id."""
        return [entry for entry in self.entries if entry.identifier is None]

    def sightings(self) -> list[Sighting]:
        """Return the sightings for `Library.put`, see `Entry.seen`; `restore` adds summaries."""
        return [sighting for entry in self.entries for sighting in entry.seen()]


def write(
    rows: Sequence[dict[str, Any]],
    format: str,  # noqa: A002 - as --format
    *,
    reader: dict[str, Any] | None = None,
) -> str:
    """Return rows of `Library.get_many` in one of `FORMATS`.

    Args:
        rows: The records; for lossless JSON pass them through `whole.with_listings`.
        format: One of `FORMATS`.
        reader: Result of `Reader.export`; only JSON can contain it.

    Raises:
        PapersError: the format is unknown, or cannot contain `reader`.
    """
    _check(format)
    if format == "json":
        return write_json(rows, reader)
    if reader is not None:
        raise PapersError(f"{format} cannot contain opinions; use --format json")
    return _WRITERS[format](list(rows))


def read(text: str | bytes, format: str, *, name: str = "the file") -> Contents:  # noqa: A002 - as --format
    """Parse `text`, written by Etude or another program.

    Args:
        text: The content; bytes may begin with a byte order mark of UTF-8 or UTF-16.
        format: One of `FORMATS`.
        name: Name of the file in error messages.

    Raises:
        PapersError: the content is malformed; the message gives the place.
    """
    _check(format)
    source = _text(text, name)
    if format == "bibtex":
        return Contents(tuple(read_bibtex(source, name)))
    if format == "ris":
        return Contents(tuple(read_ris(source, name)))
    if format == "csv":
        return Contents(tuple(read_csv(source, name)))
    content = decoded(source, name)
    if format == "csl-json":
        return Contents(tuple(read_csl(content, name)))
    entries, reader = read_json(content, name)
    return Contents(tuple(entries), reader)


def read_file(path: Path, format: str | None = None) -> Contents:  # noqa: A002 - as --format
    """Read a file; its format is guessed from name and content unless given."""
    try:
        text = _text(path.read_bytes(), path.name)
    except OSError as error:
        raise PapersError(f"{path} cannot be read: {error.strerror or error}") from error
    return read(text, format or _guessed(path, text), name=path.name)


def _guessed(path: Path, text: str) -> str:
    suffix = path.suffix.lower()
    if suffix == ".json":
        content = decoded(text, path.name)
        own = isinstance(content, dict) and "format" in cast("dict[str, Any]", content)
        return "json" if own else "csl-json"
    for known, ending in SUFFIXES.items():
        if suffix == ending:
            return known
    raise PapersError(f"{path.name}: unknown format; give --format, one of {', '.join(FORMATS)}")


def _check(format: str) -> None:  # noqa: A002 - as --format
    if format not in FORMATS:
        raise PapersError(
            f"unknown format {format!r}{did_you_mean(format, FORMATS)}; "
            f"use one of {', '.join(FORMATS)}"
        )


def _text(text: str | bytes, name: str) -> str:
    if isinstance(text, str):
        return text.removeprefix("\ufeff")
    wide = text.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return text.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        raise PapersError(
            f"{name}, line {line}: byte {error.start} is not {'UTF-16' if wide else 'UTF-8'}; "
            "save the file as UTF-8"
        ) from error
