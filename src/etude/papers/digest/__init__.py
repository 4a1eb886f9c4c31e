"""Daily digest: the new papers of each shelf, in Markdown, HTML for mail, and plain text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any, Protocol

from etude.core.errors import PapersError
from etude.papers.card import card
from etude.papers.digest.content import Content, Extra, Item, Section
from etude.papers.digest.html import written_html
from etude.papers.digest.markdown import written_markdown
from etude.papers.digest.text import written_text
from etude.papers.library import Library
from etude.papers.words import shown

if TYPE_CHECKING:
    from etude.papers.reader import Reader
    from etude.papers.search import Index
    from etude.papers.settings import Settings

MOST = 12
"""Maximum number of papers per shelf."""
_REPLACED = {"replace", "replace-cross"}


class News(Protocol):
    """New papers of a saved search or followed author, such as `ranking.alerts.Alert`."""

    @property
    def name(self) -> str:
        """Name of the search or author."""
        ...

    @property
    def ids(self) -> Sequence[str]:
        """Ids of the papers, newest first."""
        ...


@dataclass(frozen=True, slots=True)
class Digest:
    """A digest that can be rendered in three formats with the same content."""

    content: Content

    @property
    def subject(self) -> str:
        """Return the subject line."""
        return self.content.subject

    def markdown(self) -> str:
        """Return the digest in Markdown (CommonMark), with the texts of papers escaped."""
        return written_markdown(self.content)

    def html(self) -> str:
        """Return a self-contained HTML page for browsers and mail programs, light and dark."""
        return written_html(self.content)

    def text(self) -> str:
        """Return the digest in plain text, in lines of at most 78 characters."""
        return written_text(self.content)


def digest(
    library: Library,
    settings: Settings,
    reader: Reader | None,
    *,
    day: str | date | None = None,
    index: Index | None = None,
    most: int = MOST,
    alerts: Sequence[News] | None = None,
    why_empty: str | None = None,
    topic: Extra | None = None,
    problem: Extra | None = None,
) -> Digest:
    """Make the digest of a day.

    Args:
        library: The papers.
        settings: Defines the shelves.
        reader: User whose opinions decide the order and whose searches give alerts; None for the
            newest first.
        day: The feed's day, `2026-05-04`; the last day with papers if None.
        index: For the alerts of saved searches and followed authors, which are marked as shown.
        most: Maximum number of papers per section.
        alerts: Result of `ranking.alerts.waiting`, if the caller marks them as shown after the
            delivery; `index` is then unused.
        why_empty: Reason why the day has no papers, from the sync report.
        topic: Topic of the day, provided by the caller.
        problem: Problem of the day, provided by the caller.

    Raises:
        PapersError: `day` is not a date.
    """
    chosen = _day(library, day)
    rows = library.day(chosen.isoformat())
    new = [row for row in rows if row["kind"] not in _REPLACED]
    interest = _interest(library, reader)
    # Exploration differs between users, too.
    seed = f"{chosen.isoformat()} {reader.name if reader is not None else ''}"
    sections = _shelves(new, settings.shelves, interest, seed, most)
    if alerts is None:
        alerts = _alerts(library, reader, index)
    sections += [section for alert in alerts if (section := _alerted(library, alert, most))]
    replaced = [row for row in rows if row["kind"] in _REPLACED]
    if replaced:
        items = tuple(Item(card(row)) for row in replaced[:most])
        sections.append(
            Section("New versions", items, len(replaced) - len(items), "changed, not new")
        )
    empty = "" if new else why_empty or _why(chosen)
    return Digest(Content(chosen, tuple(sections), shown(empty), topic, problem))


def _day(library: Library, day: str | date | None) -> date:
    if isinstance(day, date):
        return day
    written = day or library.last_day()
    if written is None:
        return date.today()
    try:
        return date.fromisoformat(written)
    except ValueError as error:
        raise PapersError(f"{written!r} is not a date; use a date such as 2026-05-04") from error


def _why(day: date) -> str:
    from etude.papers.calendar import no_feed

    reason = no_feed(day)
    return reason or "The library has no paper of this day; see `etude papers health`."


def _interest(library: Library, reader: Reader | None) -> Any:
    if reader is None:
        return None
    from etude.papers.ranking import Interest

    return Interest.fit(library, reader)


def _shelves(
    rows: list[dict[str, Any]],
    shelves: Mapping[str, Sequence[str]],
    interest: Any,
    seed: str,
    most: int,
) -> list[Section]:
    """Return a section per shelf; a paper is on the first that ranks it, and names the others."""
    taken: dict[str, list[dict[str, Any]]] = {name: [] for name in shelves}
    also: dict[str, tuple[str, ...]] = {}
    for row in rows:
        wanted = [name for name, of in shelves.items() if set(of) & set(row["categories"])]
        if wanted:
            # The primary category decides between shelves that both rank it.
            first = next(
                (name for name in wanted if row["categories"][0] in shelves[name]), wanted[0]
            )
            taken[first].append(row)
            also[row["id"]] = tuple(name for name in wanted if name != first)
    return [
        Section(name, _ranked(found, interest, seed, also, most), max(0, len(found) - most))
        for name, found in taken.items()
        if found
    ]


def _ranked(
    rows: list[dict[str, Any]],
    interest: Any,
    seed: str,
    also: Mapping[str, tuple[str, ...]],
    most: int,
) -> tuple[Item, ...]:
    """Return the first `most` of `rows`, by interest if given, else in their order."""
    if interest is None:
        return tuple(Item(card(row), also=also[row["id"]]) for row in rows[:most])
    from etude.papers.ranking import rank

    return tuple(
        Item(
            card(one.row),
            tuple(word for word, weight in one.why if weight > 0),
            one.explored,
            also[one.row["id"]],
        )
        for one in rank(rows, interest, seed=seed)[:most]
    )


def _alerts(library: Library, reader: Reader | None, index: Index | None) -> Sequence[News]:
    if reader is None or index is None:
        return ()
    from etude.papers.ranking.alerts import alerts

    return alerts(reader, library, index)


def _alerted(library: Library, alert: News, most: int) -> Section | None:
    items = tuple(Item(card(row)) for row in library.get_many(list(alert.ids)[:most]))
    if not items:
        return None
    return Section(alert.name, items, len(alert.ids) - len(items), "new for what you follow")
