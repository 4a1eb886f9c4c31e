"""Paper card: the display form of a paper, used by feeds and digests.

Every text is one line of plain Unicode, with a summary that states how it was made. Nothing is
escaped: that is left to the writer of each format.
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
"""Maximum characters of a text."""


@dataclass(frozen=True, slots=True)
class Card:
    """One paper as displayed."""

    id: str
    version: int | None
    title: str
    authors: tuple[str, ...]
    abstract: str
    summary: str
    """Empty if there is none yet."""
    made: str
    """Description of how the summary was made."""
    comment: str
    categories: tuple[str, ...]
    licence: str
    marks: tuple[str, ...]
    """`withdrawn`, `version 2`, `cross-list`."""
    listed: datetime
    """Time of the first announcement, in UTC."""
    changed: datetime
    """Time of the version shown, in UTC; `listed` if it is the first."""

    @property
    def link(self) -> str:
        """URL of the abstract page."""
        return abstract_page(self.id)

    def byline(self, most: int = _SHOWN_AUTHORS) -> str:
        """`A, B, C et al., 8 authors`; all names if there are at most `most` + 1."""
        if len(self.authors) <= most + 1:
            return ", ".join(self.authors)
        return f"{', '.join(self.authors[:most])} et al., {len(self.authors):,} authors"


def card(row: Mapping[str, Any]) -> Card:
    """Return the card of a library row, with or without the `kind` that `Library.day` adds."""
    summary, made = _text(row.get("summary"), "text"), ""
    if summary:
        # Imported lazily: feeds of papers without summaries need no ranking model.
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
    """Return the start of arXiv's feed of `day`: midnight US Eastern, in UTC."""
    return datetime.combine(datetime.fromisoformat(day).date(), time(), EASTERN).astimezone(UTC)
