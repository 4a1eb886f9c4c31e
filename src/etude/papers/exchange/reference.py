"""Bibliographic reference of a library row, shared by BibTeX, CSL and RIS."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from etude.papers.exchange.keys import citation_key
from etude.papers.exchange.latex import plain
from etude.papers.exchange.names import Name, split_name
from etude.papers.identity import abstract_page

_PROCEEDINGS = re.compile(
    r"^in\b|\bproc\.|\bconf\.|\b(?:proceedings|conference|symposium|workshop)\b", re.IGNORECASE
)
_YEAR = re.compile(r"(?<!\d)(19[89]\d|20\d\d)(?!\d)")


@dataclass(frozen=True, slots=True)
class Reference:
    """Bibliographic fields of a row; `title`, `comment` and `journal` are still LaTeX."""

    key: str
    id: str
    title: str
    abstract: str
    names: tuple[Name, ...]
    categories: tuple[str, ...]
    date: tuple[int, ...]
    """Year, month and, if the day of the first version is known, day."""
    year: int
    """Date of the publication if its year is known, else of the first version."""
    journal: str
    proceedings: bool
    doi: str
    """The publisher's DOI, or empty."""
    comment: str
    version: int | None

    @property
    def page(self) -> str:
        """URL of the abstract page."""
        return abstract_page(self.id)

    @property
    def any_doi(self) -> str:
        """Return the publisher's DOI, else the one that arXiv registers for every paper."""
        return self.doi or f"10.48550/arXiv.{self.id}"


def reference(row: dict[str, Any]) -> Reference:
    """Return the bibliographic fields of a library row."""
    date = _date(row)
    journal = row.get("journal_ref") or ""
    years = _YEAR.findall(journal)
    return Reference(
        key=citation_key(row),
        id=row["id"],
        title=row["title"],
        abstract=row["abstract"],
        names=tuple(split_name(plain(author)) for author in row["authors"]),
        categories=tuple(row["categories"]),
        date=date,
        year=int(years[-1]) if years else date[0],
        journal=journal,
        proceedings=bool(_PROCEEDINGS.search(journal)),
        doi=(row.get("doi") or "").split()[0] if (row.get("doi") or "").strip() else "",
        comment=row.get("comment") or "",
        version=row.get("version"),
    )


def _date(row: dict[str, Any]) -> tuple[int, ...]:
    if row.get("published") is not None:
        moment = datetime.fromtimestamp(row["published"], UTC)
        return (moment.year, moment.month, moment.day)
    # The id contains the month: 2403.01234, hep-th/9901001.
    digits = row["id"].rpartition("/")[2]
    year, month = int(digits[:2]), int(digits[2:4])
    return ((1900 if year > 90 else 2000) + year, min(max(month, 1), 12))
