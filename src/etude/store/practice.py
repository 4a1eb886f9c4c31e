"""Tables of the practice problems. Times are seconds since 1970, UTC."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, Index, Integer, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from etude.store.base import Base

_Number = BigInteger().with_variant(Integer, "sqlite")


class Submission(Base):
    """One submission, queued, running or judged."""

    __tablename__ = "practice_submissions"
    __table_args__ = (Index("ix_practice_submissions_waiting", "state", "number"),)

    number: Mapped[int] = mapped_column(_Number, primary_key=True, autoincrement=True)
    """Place in the queue: submissions start in this order."""
    key: Mapped[str] = mapped_column(String(32), unique=True)
    user: Mapped[str] = mapped_column(String(80), index=True)
    slug: Mapped[str] = mapped_column(String(80))
    source: Mapped[str] = mapped_column(Text)
    seed: Mapped[int] = mapped_column(BigInteger)
    state: Mapped[str] = mapped_column(String(8), default="queued")
    """`queued`, `running` or `done`."""
    attempts: Mapped[int] = mapped_column(default=0)
    """Number of times a worker has started it; above 1 only if a worker died."""
    worker: Mapped[str | None] = mapped_column(String(40))
    lease: Mapped[float | None]
    """Time until which the worker is presumed alive."""
    created: Mapped[float]
    finished: Mapped[float | None]
    kind: Mapped[str | None] = mapped_column(String(24))
    verdict: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    visible_only: Mapped[bool] = mapped_column(default=False)
    """Whether only the visible tests are run: then it counts neither as solved nor as tried."""


class Draft(Base):
    """The code of a user for a problem, as it was last saved in the browser."""

    __tablename__ = "practice_drafts"

    user: Mapped[str] = mapped_column(String(80), primary_key=True)
    slug: Mapped[str] = mapped_column(String(80), primary_key=True)
    tab: Mapped[str] = mapped_column(String(32), primary_key=True)
    """Empty for the draft itself; otherwise the tab whose code began at an older revision and is
    kept beside it, until the user has chosen."""
    revision: Mapped[int]
    source: Mapped[str] = mapped_column(Text)
    saved: Mapped[float]


class Profile(Base):
    """Settings of a user."""

    __tablename__ = "practice_profiles"

    user: Mapped[str] = mapped_column(String(80), primary_key=True)
    timezone: Mapped[str] = mapped_column(String(64), default="UTC")


class Opening(Base):
    """A problem that a user has started, and the help used."""

    __tablename__ = "practice_openings"

    user: Mapped[str] = mapped_column(String(80), primary_key=True)
    slug: Mapped[str] = mapped_column(String(80), primary_key=True)
    started: Mapped[float]
    hints: Mapped[int] = mapped_column(default=0)
    explained: Mapped[bool] = mapped_column(default=False)


class Review(Base):
    """Spaced repetition of a concept (Leitner boxes)."""

    __tablename__ = "practice_reviews"

    user: Mapped[str] = mapped_column(String(80), primary_key=True)
    concept: Mapped[str] = mapped_column(String(80), primary_key=True)
    box: Mapped[int] = mapped_column(default=0)
    due: Mapped[str] = mapped_column(String(10))
    """The day in the user's time zone, as YYYY-MM-DD."""
    right: Mapped[int] = mapped_column(default=0)
    wrong: Mapped[int] = mapped_column(default=0)


class Daily(Base):
    """A user's daily problem; fixed once chosen."""

    __tablename__ = "practice_dailies"
    __table_args__ = (UniqueConstraint("user", "day"),)

    number: Mapped[int] = mapped_column(_Number, primary_key=True, autoincrement=True)
    user: Mapped[str] = mapped_column(String(80))
    day: Mapped[str] = mapped_column(String(10))
    slug: Mapped[str] = mapped_column(String(80))
    why: Mapped[str] = mapped_column(String(200))
    solved: Mapped[float | None]


class Explained(Base):
    """An explanation by a language model, as shown to the user, and whether it helped."""

    __tablename__ = "practice_explanations"
    __table_args__ = (Index("ix_practice_explanations_user", "user", "number"),)

    number: Mapped[int] = mapped_column(_Number, primary_key=True, autoincrement=True)
    user: Mapped[str] = mapped_column(String(80))
    slug: Mapped[str] = mapped_column(String(80))
    model: Mapped[str] = mapped_column(String(120))
    text: Mapped[str] = mapped_column(Text)
    withheld: Mapped[str] = mapped_column(Text)
    at: Mapped[float]
    helped: Mapped[bool | None]
    """None until the user rates it."""
    submission: Mapped[str | None] = mapped_column(String(32))
    """Key of the submission that it explains, if that was recorded."""
