"""Tables of the papers. Times are seconds since 1970, UTC; days are written YYYY-MM-DD."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, Index, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from etude.store.base import Base

_Number = BigInteger().with_variant(Integer, "sqlite")


class Paper(Base):
    """One paper: its newest version known from any source."""

    __tablename__ = "papers"
    __table_args__ = (
        Index("ix_papers_revision", "revision"),
        Index("ix_papers_announced", "announced"),
    )

    number: Mapped[int] = mapped_column(_Number, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(32), unique=True)
    version: Mapped[int | None]
    title: Mapped[str] = mapped_column(Text)
    abstract: Mapped[str] = mapped_column(Text)
    authors: Mapped[list[str]] = mapped_column(JSON)
    categories: Mapped[list[str]] = mapped_column(JSON)
    published: Mapped[float | None]
    updated: Mapped[float | None]
    comment: Mapped[str | None] = mapped_column(Text)
    journal_ref: Mapped[str | None] = mapped_column(Text)
    doi: Mapped[str | None] = mapped_column(Text)
    licence: Mapped[str | None] = mapped_column(Text)
    datestamp: Mapped[str | None] = mapped_column(String(10))
    announced: Mapped[str] = mapped_column(String(10))
    """First day of listing, else that of its first version, else the day it was first seen."""
    replaced: Mapped[str | None] = mapped_column(String(10))
    """The last day on which a new version of it was announced."""
    withdrawn: Mapped[bool | None]
    """None where no source reports it."""
    basis: Mapped[dict[str, Any]] = mapped_column(JSON)
    """Source of each value: under "" for most fields, by name for those of an older sighting."""
    first_seen: Mapped[float]
    revision: Mapped[int] = mapped_column(BigInteger)
    """Grows with every change of a paper: a full-text index fetches revisions above its own."""
    summary: Mapped[str | None] = mapped_column(Text)
    summary_by: Mapped[str | None] = mapped_column(String(120))
    """How the summary was made; None where there is none for this version of the abstract."""


class Listing(Base):
    """A day on which a paper was announced, and the kind of announcement."""

    __tablename__ = "papers_listings"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    day: Mapped[str] = mapped_column(String(10), primary_key=True, index=True)
    kind: Mapped[str] = mapped_column(String(16), default="new")


class Opinion(Base):
    """A user's opinion of a paper: 1 is like, -1 is dislike."""

    __tablename__ = "papers_opinions"

    user: Mapped[str] = mapped_column(String(80), primary_key=True)
    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    value: Mapped[int]
    at: Mapped[float]


class Tag(Base):
    """A user's tag on a paper."""

    __tablename__ = "papers_tags"

    user: Mapped[str] = mapped_column(String(80), primary_key=True)
    tag: Mapped[str] = mapped_column(String(80), primary_key=True)
    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    at: Mapped[float]


class Note(Base):
    """A user's note on a paper: plain text in lines."""

    __tablename__ = "papers_notes"

    user: Mapped[str] = mapped_column(String(80), primary_key=True)
    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    text: Mapped[str] = mapped_column(Text)
    at: Mapped[float]


class Following(Base):
    """An author whom a user follows."""

    __tablename__ = "papers_following"

    user: Mapped[str] = mapped_column(String(80), primary_key=True)
    author: Mapped[str] = mapped_column(String(200), primary_key=True)
    at: Mapped[float]


class SavedSearch(Base):
    """A user's saved search; `seen` is the number of the last paper checked for alerts."""

    __tablename__ = "papers_searches"

    user: Mapped[str] = mapped_column(String(80), primary_key=True)
    name: Mapped[str] = mapped_column(String(80), primary_key=True)
    query: Mapped[str] = mapped_column(Text)
    seen: Mapped[int] = mapped_column(BigInteger, default=0)
    at: Mapped[float]


class Mark(Base):
    """Key-value pairs: the last revision, how far each source was read, how the last run ended."""

    __tablename__ = "papers_marks"

    key: Mapped[str] = mapped_column(String(80), primary_key=True)
    value: Mapped[Any | None] = mapped_column(JSON)
