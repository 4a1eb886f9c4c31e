"""What a digest holds, whatever it is written as."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from etude.papers.card import Card


@dataclass(frozen=True, slots=True)
class Extra:
    """A part that the caller hands in: the day's topic, the day's problem."""

    title: str
    text: str
    link: str = ""


@dataclass(frozen=True, slots=True)
class Item:
    """A paper in its place."""

    card: Card
    why: tuple[str, ...] = ()
    """The words that put it where it is."""
    explored: bool = False
    """Whether it stands there to find out if the reader likes it."""
    also: tuple[str, ...] = ()
    """Other shelves that it stands on."""


@dataclass(frozen=True, slots=True)
class Section:
    """Papers under a name."""

    name: str
    items: tuple[Item, ...]
    left_out: int = 0
    """How many more there are."""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Content:
    """A day's digest; every text in it may be hostile, and is escaped by who writes it."""

    day: date
    sections: tuple[Section, ...]
    empty: str = ""
    """Why there is no new paper, where there is none."""
    topic: Extra | None = None
    problem: Extra | None = None

    @property
    def count(self) -> int:
        """How many new papers the day's shelves have, shown or not."""
        return sum(
            len(section.items) + section.left_out for section in self.sections if not section.note
        )

    @property
    def subject(self) -> str:
        """The digest's name: `Papers of 4 May 2026: 212 new`."""
        told = f"{self.count:,} new" if self.count else "none new"
        return f"Papers of {self.day.day} {self.day:%B %Y}: {told}"
