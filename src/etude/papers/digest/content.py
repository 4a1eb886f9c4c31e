"""Content of a digest, independent of its format."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from etude.papers.card import Card


@dataclass(frozen=True, slots=True)
class Extra:
    """A section provided by the caller: the day's topic or problem."""

    title: str
    text: str
    link: str = ""


@dataclass(frozen=True, slots=True)
class Item:
    """A paper in a section."""

    card: Card
    why: tuple[str, ...] = ()
    """Terms that decided its rank."""
    explored: bool = False
    """Whether it was included for exploration."""
    also: tuple[str, ...] = ()
    """Other shelves that it belongs to."""


@dataclass(frozen=True, slots=True)
class Section:
    """A named list of papers."""

    name: str
    items: tuple[Item, ...]
    left_out: int = 0
    """Number of papers not shown."""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Content:
    """A day's digest; its texts are untrusted, and the writers escape them."""

    day: date
    sections: tuple[Section, ...]
    empty: str = ""
    """Reason why there are no new papers, if there are none."""
    topic: Extra | None = None
    problem: Extra | None = None

    @property
    def count(self) -> int:
        """Number of new papers on all shelves, shown or not."""
        return sum(
            len(section.items) + section.left_out for section in self.sections if not section.note
        )

    @property
    def subject(self) -> str:
        """Subject of the digest: `Papers of 4 May 2026: 212 new`."""
        new = f"{self.count:,} new" if self.count else "none new"
        return f"Papers of {self.day.day} {self.day:%B %Y}: {new}"
