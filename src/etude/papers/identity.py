"""arXiv identifiers: parsing and normalisation.

Forms are those of https://info.arxiv.org/help/arxiv_identifier.html: ``0704.0001`` to
``1412.9999`` with four digits, ``1501.00001`` and later with five, and before April 2007 an
archive with seven digits, ``hep-th/9901001``, in which a subject class may follow the archive's
name (``math.CA/0611800`` is ``math/0611800``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_FORM = re.compile(
    r"^(?:oai:arXiv\.org:|arXiv:|https?://(?:www\.|export\.)?arxiv\.org/(?:abs|pdf|html)/)?"
    r"(?P<id>\d{4}\.\d{4,5}|[a-z-]+(?:\.[A-Z]{2})?/\d{7})(?:v(?P<version>[1-9]\d{0,3}))?(?:\.pdf)?$",
    re.IGNORECASE | re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Identifier:
    """An unversioned id and, if given, a version of at least 1."""

    id: str
    version: int | None = None

    def __str__(self) -> str:
        return self.id if self.version is None else f"{self.id}v{self.version}"


def parse_identifier(text: str) -> Identifier:
    """Parse an identifier: bare, with ``arXiv:``, in OAI form, or as an arXiv URL.

    Raises `ValueError` if it is not one.
    """
    match = _FORM.match(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not an arXiv id; ids look like 2403.01234 or hep-th/9901001")
    bare = match["id"]
    if "/" in bare:
        archive, number = bare.split("/")
        bare = f"{archive.split('.')[0].lower()}/{number}"
    return Identifier(bare, int(match["version"]) if match["version"] else None)


def month_of(paper_id: str) -> str:
    """Return the month of an unversioned id, as 2024-03."""
    year, month = (number := paper_id.rpartition("/")[2])[:2], number[2:4]
    # Ids of two-digit years began in 1991.
    return f"{'19' if int(year) >= 91 else '20'}{year}-{month}"


def abstract_page(paper_id: str) -> str:
    """Return the URL of the abstract page; arXiv asks to link there rather than to the PDF."""
    return f"https://arxiv.org/abs/{paper_id}"
