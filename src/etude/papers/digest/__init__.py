"""A day's digest: what is new on each shelf, in Markdown, HTML for mail, and plain text."""

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
"""Papers that a shelf shows."""
_REPLACED = {"replace", "replace-cross"}


class News(Protocol):
    """New papers of a saved search or a followed author: an `Alert` of the ranking."""

    @property
    def name(self) -> str:
        """Of the search or author."""
        ...

    @property
    def ids(self) -> Sequence[str]:
        """Of the papers, newest first."""
        ...


@dataclass(frozen=True, slots=True)
class Digest:
    """A digest, to be written in three ways that say the same."""

    content: Content

    @property
    def subject(self) -> str:
        """One line that names it."""
        return self.content.subject

    def markdown(self) -> str:
        """The digest in Markdown (CommonMark); texts of papers are text in it and nothing else."""
        return written_markdown(self.content)

    def html(self) -> str:
        """A page of its own, light and dark, that mail programs show as well."""
        return written_html(self.content)

    def text(self) -> str:
        """The digest in plain text, in lines of at most 78 letters."""
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
    """The digest of a day.

    Args:
        library: Papers.
        settings: Which shelves there are.
        reader: Whose opinions decide the order and whose searches are looked at; None for the
            newest first.
        day: The feed's day, `2026-05-04`; the last one that has papers if None.
        index: For the alerts of saved searches and followed authors, which count as shown now.
        most: Papers that each part shows at most.
        alerts: Those of `ranking.alerts.waiting`, where the caller counts them as shown when the
            digest has arrived; then `index` is not looked at.
        why_empty: Why the day has none, as the sync's report says it.
        topic: Of the day, from elsewhere.
        problem: Of the day, from elsewhere.

    Raises:
        PapersError: `day` is no day.
    """
    chosen = _day(library, day)
    rows = library.day(chosen.isoformat())
    new = [row for row in rows if row["kind"] not in _REPLACED]
    interest = _interest(library, reader)
    # What is tried out differs between readers, too.
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
        raise PapersError(f"{written!r} is no day; days look like 2026-05-04") from error


def _why(day: date) -> str:
    from etude.papers.calendar import no_feed

    reason = no_feed(day)
    return reason or "No paper of this day is in the library; `etude papers health` says more."


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
    """A section a shelf; a paper stands on the first that wants it, and names the others."""
    taken: dict[str, list[dict[str, Any]]] = {name: [] for name in shelves}
    also: dict[str, tuple[str, ...]] = {}
    for row in rows:
        wanted = [name for name, of in shelves.items() if set(of) & set(row["categories"])]
        if wanted:
            # The primary category decides between shelves that both want it.
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
    """The first `most` of `rows`, by interest where there is one, else in their order."""
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
    from etude.papers.ranking import alerts

    return alerts(reader, library, index)


def _alerted(library: Library, alert: News, most: int) -> Section | None:
    items = tuple(Item(card(row)) for row in library.get_many(list(alert.ids)[:most]))
    if not items:
        return None
    return Section(alert.name, items, len(alert.ids) - len(items), "new for what you follow")
