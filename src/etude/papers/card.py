"""A paper as people see it: plain texts, a summary that says how it was made, and marks.

Feeds and digests make their pages of this. Every text of it is one line of plain Unicode, and
none of it is escaped for any format: that is for the writer of the format to do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, time
from typing import Any

from etude.papers.calendar import EASTERN
from etude.papers.identity import abstract_page
from etude.papers.latex_text import latex_to_text

_SHOWN_AUTHORS = 3
_LONGEST = {"title": 400, "author": 120, "comment": 400, "text": 5_000}
"""Letters; whatever is longer was not written for people, and would push all else off a page."""


@dataclass(frozen=True, slots=True)
class Card:
    """One paper."""

    id: str
    version: int | None
    title: str
    authors: tuple[str, ...]
    abstract: str
    summary: str
    """Empty where none was made yet."""
    made: str
    """How the summary was made, in words."""
    comment: str
    categories: tuple[str, ...]
    licence: str
    marks: tuple[str, ...]
    """`withdrawn`, `version 2`, `cross-list`."""
    listed: datetime
    """When it was announced first, in UTC."""
    changed: datetime
    """When the version that is shown came out, in UTC; `listed` where it is the first."""

    @property
    def link(self) -> str:
        """Address of the abstract page."""
        return abstract_page(self.id)

    def byline(self, most: int = _SHOWN_AUTHORS) -> str:
        """`A, B, C et al., 8 authors`; all names where there is at most one more than `most`."""
        if len(self.authors) <= most + 1:
            return ", ".join(self.authors)
        return f"{', '.join(self.authors[:most])} et al., {len(self.authors):,} authors"


def card(row: Mapping[str, Any]) -> Card:
    """The card of a row of the library, which may have the `kind` that `Library.day` adds."""
    summary, made = _text(row.get("summary"), "text"), ""
    if summary:
        # Here and not above: feeds of papers without summaries need no ranking model.
        from etude.papers.summaries import described

        made = described(row.get("summary_by") or "")
    listed = _midnight(row["announced"])
    moments = [listed]
    if (row.get("version") or 1) > 1 and row.get("updated") is not None:
        moments.append(datetime.fromtimestamp(row["updated"], UTC))
    if row.get("replaced"):
        moments.append(_midnight(row["replaced"]))
    marks: list[str] = []
    if row.get("withdrawn"):
        marks.append("withdrawn")
    if (row.get("version") or 1) > 1:
        marks.append(f"version {row['version']}")
    elif row.get("replaced"):
        marks.append("replaced")
    if row.get("kind") in {"cross", "replace-cross"}:
        marks.append("cross-list")
    return Card(
        id=row["id"],
        version=row.get("version"),
        title=_text(row["title"], "title") or row["id"],
        authors=tuple(filter(None, (_text(name, "author") for name in row["authors"]))),
        abstract=_text(row["abstract"], "text"),
        summary=summary,
        made=made,
        comment=_text(row.get("comment"), "comment"),
        categories=tuple(row["categories"]),
        licence=row.get("licence") or "",
        marks=tuple(marks),
        listed=listed,
        changed=max(moments),
    )


def _text(text: str | None, kind: str) -> str:
    most = _LONGEST[kind]
    shown = latex_to_text((text or "")[: 2 * most])
    return shown if len(shown) <= most else f"{shown[: most - 1].rstrip()}…"


def _midnight(day: str) -> datetime:
    """When arXiv's feed of `day` opens: midnight of its own clock, in UTC."""
    return datetime.combine(datetime.fromisoformat(day).date(), time(), EASTERN).astimezone(UTC)
