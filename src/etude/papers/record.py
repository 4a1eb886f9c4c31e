"""What a source of papers says of one paper.

Each of arXiv's interfaces knows some fields and not others. A field that an interface does not
carry is None, which is not the same as empty: None leaves what is stored alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum


class Announcement(StrEnum):
    """Why a paper stands in a day's list; the words are those of arXiv's feeds."""

    NEW = "new"
    CROSS = "cross"
    REPLACE = "replace"
    REPLACE_CROSS = "replace-cross"


@dataclass(frozen=True, slots=True)
class Sighting:
    """One paper as one answer of a source described it; texts as written there, unfolded."""

    id: str
    """Unversioned, see `etude.papers.identity`."""
    title: str
    abstract: str
    authors: tuple[str, ...]
    categories: tuple[str, ...]
    """The first is the primary one."""
    version: int | None = None
    """None where the source does not tell (OAI's `arXiv` format)."""
    published: datetime | None = None
    """Of version 1, in UTC."""
    updated: datetime | None = None
    """Of this version, in UTC."""
    comment: str | None = None
    journal_ref: str | None = None
    doi: str | None = None
    licence: str | None = None
    datestamp: date | None = None
    """Day of the last change of metadata (OAI only)."""
    announced: date | None = None
    """Day of the feed that the paper stood in (RSS only)."""
    announcement: Announcement | None = None
    withdrawn: bool | None = None
    """None where the source cannot tell."""
