"""What a file says of one paper, whoever wrote it."""

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
    """One paper of a file, in plain Unicode; what the file does not say is None or empty."""

    place: str
    """Where in the file it stands, such as `refs.bib, line 12`."""
    identifier: Identifier | None
    """None where no field names a paper of arXiv."""
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
    """Etude's own JSON knows all that its library did; other formats leave this empty."""
    row: dict[str, Any] | None = field(default=None, repr=False)
    """The record that Etude's own JSON holds."""

    def seen(self) -> tuple[Sighting, ...]:
        """What the library may be told: nothing where there is no arXiv id or no title.

        A file that people or other programs wrote never outranks a source: it claims no version.
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
    """The first arXiv id that one of `texts` names by `arXiv:`, an address, or arXiv's own DOI."""
    for text in texts:
        match = _NAMED.search(text)
        if match is not None:
            return parse_identifier(
                match["id"] + (f"v{match['version']}" if match["version"] else "")
            )
    return None


def identifier_of(eprint: str, archive: str = "", primary: str = "") -> Identifier | None:
    """The id in a field that holds nothing else, or None.

    Before 2007 an id has its archive before it, which some writers keep in another field: the
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
    """Those of words, separated by commas or semicolons, that are categories of arXiv."""
    found = (word.strip() for word in re.split(r"[,;]", words))
    return tuple(dict.fromkeys(word for word in found if _CATEGORY.fullmatch(word)))


def publisher_doi(doi: str) -> str | None:
    """`doi` without the resolver's address, or None where it is empty or arXiv's own."""
    bare = re.sub(r"^(https?://(dx\.)?doi\.org/|doi:\s*)", "", doi.strip(), flags=re.IGNORECASE)
    return None if not bare or bare.lower().startswith("10.48550/") else bare


def journal_of(text: str) -> str | None:
    """A reference to a journal, or None where it only says that it is a preprint."""
    preprint = re.search(r"\b(arxiv|corr)\b", text, re.IGNORECASE)
    return None if preprint or not text.strip() else text.strip()
