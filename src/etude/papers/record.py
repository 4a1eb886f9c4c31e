"""Sighting: the record of one paper as one source reports it.

Each of arXiv's interfaces provides a subset of the fields. A field that an interface does not
carry is None, which differs from empty: None leaves the stored value unchanged.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum


class Announcement(StrEnum):
    """Kind of announcement, with the values of arXiv's feeds."""

    NEW = "new"
    CROSS = "cross"
    REPLACE = "replace"
    REPLACE_CROSS = "replace-cross"


@dataclass(frozen=True, slots=True)
class Sighting:
    """One paper as described in one response; texts are unchanged except for line breaks."""

    id: str
    """Unversioned, see `etude.papers.identity`."""
    title: str
    abstract: str
    authors: tuple[str, ...]
    categories: tuple[str, ...]
    """The first is the primary one."""
    version: int | None = None
    """None where the source does not provide it (OAI's `arXiv` format)."""
    published: datetime | None = None
    """Time of version 1, in UTC."""
    updated: datetime | None = None
    """Time of this version, in UTC."""
    comment: str | None = None
    journal_ref: str | None = None
    doi: str | None = None
    licence: str | None = None
    datestamp: date | None = None
    """Day of the last metadata change (OAI only)."""
    announced: date | None = None
    """Day of the feed that listed the paper (RSS only)."""
    announcement: Announcement | None = None
    withdrawn: bool | None = None
    """None where the source does not provide it."""
