"""Entry of a bibliography file about one paper, in any format."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from etude.papers.identity import Identifier, parse_identifier
from etude.papers.record import Sighting

_NAMED = re.compile(
    r"(?:arxiv\.org/(?:abs|pdf|html|format)/|10\.48550/arxiv\.|arxiv(?:\s*[:.]\s*|\s+)(?:abs/)?"
    r"|\babs/)(?P<id>\d{4}\.\d{4,5}|[a-z-]+(?:\.[a-z]{2})?/\d{7})(?:v(?P<version>[1-9]\d{0,3}))?"
    r"(?![\d.]*\d)",
    re.IGNORECASE | re.ASCII,
)

_CATEGORY = re.compile(
    r"(?:cs|math|stat|eess|econ|q-bio|q-fin|physics|astro-ph|cond-mat|nlin)\.[A-Za-z]{2}[A-Za-z-]*"
    r"|hep-(?:th|ph|ex|lat)|gr-qc|math-ph|nucl-(?:th|ex)|quant-ph|astro-ph|cond-mat",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One paper of a file, in plain Unicode; missing fields are None or empty."""

    place: str
    """Place in the file, such as `refs.bib, line 12`."""
    identifier: Identifier | None
    """None without an arXiv id."""
    title: str = ""
    authors: tuple[str, ...] = ()
    abstract: str = ""
    categories: tuple[str, ...] = ()
    doi: str | None = None
    journal_ref: str | None = None
    comment: str | None = None
    key: str = ""
    """Its citation key in that file."""
    tags: tuple[str, ...] = ()
    sightings: tuple[Sighting, ...] = field(default=(), repr=False)
    """Sightings from Etude's own JSON; empty for other formats."""
    row: dict[str, Any] | None = field(default=None, repr=False)
    """The record from Etude's own JSON."""

    def seen(self) -> tuple[Sighting, ...]:
        """Return the sightings for the library: none without an arXiv id or a title.

        A file written by others never outranks a source, since it claims no version.
        """
        if self.sightings:
            return self.sightings
        if self.identifier is None or not self.title:
            return ()
        return (
            Sighting(
                self.identifier.id,
                self.title,
                self.abstract,
                self.authors,
                self.categories,
                doi=self.doi,
                journal_ref=self.journal_ref,
                comment=self.comment,
            ),
        )


def identifier_in(texts: Iterable[str]) -> Identifier | None:
    """Return the first arXiv id in `texts`, marked by `arXiv:`, a URL, or arXiv's own DOI."""
    for text in texts:
        match = _NAMED.search(text)
        if match is not None:
            return parse_identifier(
                match["id"] + (f"v{match['version']}" if match["version"] else "")
            )
    return None


def identifier_of(eprint: str, archive: str = "", primary: str = "") -> Identifier | None:
    """Return the id in a field that contains nothing else, or None.

    Ids before 2007 begin with an archive, which some writers put in another field: the
    eprint `9901001` of the primary class `hep-th`.
    """
    if archive and not archive.lower().startswith(("arxiv", "http")):
        return None
    bare = eprint.strip()
    if re.fullmatch(r"\d{7}(v\d+)?", bare, re.ASCII) and primary:
        bare = f"{primary.partition('.')[0]}/{bare}"
    try:
        return parse_identifier(bare)
    except ValueError:
        return identifier_in([bare])


def categories_in(words: str) -> tuple[str, ...]:
    """Return the words, separated by commas or semicolons, that are arXiv categories."""
    found = (word.strip() for word in re.split(r"[,;]", words))
    return tuple(dict.fromkeys(word for word in found if _CATEGORY.fullmatch(word)))


def publisher_doi(doi: str) -> str | None:
    """Return `doi` without the resolver's URL, or None if it is empty or arXiv's own."""
    bare = re.sub(r"^(https?://(dx\.)?doi\.org/|doi:\s*)", "", doi.strip(), flags=re.IGNORECASE)
    return None if not bare or bare.lower().startswith("10.48550/") else bare


def journal_of(text: str) -> str | None:
    """Return a journal reference, or None if it only says that it is a preprint."""
    preprint = re.search(r"\b(arxiv|corr)\b", text, re.IGNORECASE)
    return None if preprint or not text.strip() else text.strip()
