"""Reading: the day's papers, searches, one paper, news and interests, for one reader."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any, Literal

from etude.app.papers.opening import (
    Show,
    iso_day,
    known_category,
    open_index,
    open_settings,
    paper_id,
    show_nothing,
)
from etude.core.errors import PapersError, did_you_mean

if TYPE_CHECKING:
    from etude.papers.library import Library
    from etude.papers.ranking import Interest, Ranked
    from etude.papers.ranking.alerts import Waiting
    from etude.papers.reader import Reader
    from etude.papers.search import Index
    from etude.papers.settings import Settings

Row = dict[str, Any]
"""A paper as the library returns it."""
Order = Literal["newest", "relevance", "interest"]
_REPLACED = {"replace", "replace-cross"}


@dataclass(frozen=True)
class ListedPaper:
    """A paper in a list, with what its reader knows of it."""

    row: Row
    opinion: int = 0
    """1 if the reader liked it, -1 if they disliked it."""
    tags: tuple[str, ...] = ()
    """The reader's tags on it."""
    why: tuple[tuple[str, float], ...] = ()
    """Words that decided its place, each with its weight; empty if likes had no part in it."""

    def because(self, most: int = 3) -> list[str]:
        """Return the words that raised it most, or why it is here without them."""
        from etude.papers.words import folded

        found: list[str] = []
        for word, weight in self.why:
            # "Vocabulary" says nothing more after "Open Vocabulary".
            new = not any(set(folded(word).split()) <= set(folded(one).split()) for one in found)
            if weight >= 0 and new:
                found.append(word)
        return found[:most]


@dataclass(frozen=True)
class DayList:
    """The papers of one day."""

    day: str
    """YYYY-MM-DD."""
    papers: list[ListedPaper]
    """All of them, the most interesting first."""
    no_likes: bool
    """Whether nothing is known of the reader, so that the order is by date only."""
    why_empty: str = ""
    """If there are no papers: why, in one sentence."""


@dataclass(frozen=True)
class TopicList:
    """Papers of a day with a term in common."""

    name: str
    """The term; empty for the rest."""
    papers: list[ListedPaper]
    """The most interesting first."""


@dataclass(frozen=True)
class SearchResult:
    """One page of what a search found."""

    papers: list[ListedPaper]
    total: int
    """Papers found, on all pages."""
    counted: str
    """The total for people; it says so if there are more than were counted."""
    explain: str
    """How the query was read; empty if as typed."""
    suggestions: list[str]
    """Queries that may have been meant."""
    no_likes: bool = False
    """Whether ordering by interest was asked for and nothing is known of the reader."""


@dataclass(frozen=True)
class PaperDetails:
    """One paper with the papers that are like it."""

    paper: ListedPaper
    related: list[Row]


def rows_of_day(
    library: Library,
    settings: Settings,
    *,
    day: str | None = None,
    shelf: str | None = None,
    replaced: bool = False,
) -> tuple[str, list[Row]]:
    """Return a day and its papers, the newest first; see `papers_of_day`."""
    if shelf is not None and shelf not in settings.shelves:
        raise PapersError(f"there is no shelf {shelf!r}{did_you_mean(shelf, settings.shelves)}")
    chosen = iso_day(day) if day else library.last_day()
    if chosen is None:
        raise PapersError(
            "no paper here was announced yet, they came from elsewhere: `etude papers sync` "
            "fetches the last days"
        )
    rows = [
        row
        for row in library.day(chosen)
        if (row["kind"] in _REPLACED) is replaced
        and (shelf is None or shelf in settings.shelf_of(row["categories"]))
    ]
    return chosen, rows


def papers_of_day(
    library: Library,
    reader: Reader,
    settings: Settings,
    *,
    day: str | None = None,
    shelf: str | None = None,
    replaced: bool = False,
    show: Show = show_nothing,
) -> DayList:
    """Return a day's papers in the order of the reader's interest.

    Args:
        library: where the papers are.
        reader: whose interest orders them.
        settings: name the shelves.
        day: YYYY-MM-DD; None is the last day with papers.
        shelf: papers of this shelf only.
        replaced: new versions instead of new papers.
        show: called with what is being done.

    Raises:
        PapersError: there is no such shelf, `day` is no day, or no paper was announced yet.
    """
    chosen, rows = rows_of_day(library, settings, day=day, shelf=shelf, replaced=replaced)
    if not rows:
        return DayList(chosen, [], no_likes=False, why_empty=why_empty(chosen))
    ranked = _ranked(library, reader, rows, chosen, settings, show)
    return DayList(chosen, _listed_ranked(reader, ranked), no_likes=_unknown(ranked))


def topics_of_day(
    library: Library,
    reader: Reader,
    settings: Settings,
    *,
    day: str | None = None,
    shelf: str | None = None,
    replaced: bool = False,
) -> list[TopicList]:
    """Return a day's papers in groups by topic; see `papers_of_day` for the arguments."""
    from etude.papers.ranking.corpus import corpus_of
    from etude.papers.ranking.topics import topics

    found = papers_of_day(library, reader, settings, day=day, shelf=shelf, replaced=replaced).papers
    corpus = corpus_of(library)
    if corpus is None:
        return []
    return [
        TopicList(topic.name, [found[place] for place in topic.places])
        for topic in topics(corpus, [paper.row for paper in found])
    ]


def why_ranked(
    library: Library, reader: Reader, paper: str
) -> tuple[float, list[tuple[str, float]]] | None:
    """Return a paper's score and all its terms with their parts in it, strongest first.

    Returns:
        None if nothing is known of the reader.

    Raises:
        PapersError: the library does not have the paper.
    """
    interest = interest_of(library, reader)
    if interest is None:
        return None
    row = _row(library, paper)
    why = interest.why(row, None)
    return sum(part for _, part in why), why


def _row(library: Library, paper: str) -> Row:
    key = paper_id(paper)
    row = library.get(key)
    if row is None:
        raise PapersError(f"{key} is not among the papers here; `etude papers search` finds others")
    return row


def why_empty(day: str) -> str:
    """Return why a day has no papers: arXiv's calendar, or where to look."""
    from etude.papers.calendar import no_feed

    return no_feed(date.fromisoformat(day)) or "`etude papers health` says how collecting goes"


def search_papers(
    library: Library,
    reader: Reader,
    query: str,
    *,
    order: Order = "newest",
    limit: int = 10,
    page: int = 1,
    since: str | None = None,
    until: str | None = None,
    categories: Sequence[str] = (),
    index: Index | None = None,
    show: Show = show_nothing,
) -> SearchResult:
    """Return one page of the papers that a query finds.

    Args:
        library: where the papers are.
        reader: whose likes, tags and interest go with them.
        query: in the language of `etude.papers.search.query`.
        order: `interest` ranks the 200 newest (or ten pages, if more) by the reader's likes.
        limit: papers on a page.
        page: which one, from 1.
        since: announced on this day or later, YYYY-MM-DD.
        until: announced on this day or earlier.
        categories: of any of these only; empty for all.
        index: used as it is; None opens it and brings it up to date.
        show: called with what is being done.

    Raises:
        PapersError: the query, a day or a category cannot be read.
    """
    by_interest = order == "interest"
    first = (page - 1) * limit
    found = (index or open_index(library, show)).search(
        query,
        order="relevance" if order == "relevance" else "newest",
        most=max(limit * 10, 200) if by_interest else limit,
        offset=0 if by_interest else first,
        since=iso_day(since) if since else None,
        until=iso_day(until) if until else None,
        categories=[known_category(name) for name in categories] or None,
    )
    rows = library.get_many(found.ids)
    if by_interest:
        ranked = _ranked(library, reader, rows, query, None, show)[first : first + limit]
        papers, no_likes = _listed_ranked(reader, ranked), _unknown(ranked)
    else:
        papers, no_likes = listed(reader, rows), False
    return SearchResult(
        papers, found.total, found.counted(), found.explain, list(found.suggestions), no_likes
    )


def paper_details(
    library: Library,
    reader: Reader | None,
    paper: str,
    *,
    related: int = 5,
    show: Show = show_nothing,
) -> PaperDetails:
    """Return a paper, by its id or URL, and up to `related` papers like it.

    Raises:
        PapersError: the library does not have it.
    """
    row = _row(library, paper)
    key = row["id"]
    shown = ListedPaper(row)
    if reader is not None:
        shown = ListedPaper(row, reader.opinions().get(key, 0), tuple(reader.tags_of(key)))
    if not related:
        return PaperDetails(shown, [])
    near = dict(open_index(library, show).related(key, related))
    return PaperDetails(shown, library.get_many(list(near)))


def news(library: Library, reader: Reader, show: Show = show_nothing) -> Waiting:
    """Return new papers of saved searches and followed authors, not yet counted as shown.

    Raises:
        PapersError: there are neither.
    """
    from etude.papers.ranking import waiting

    if not reader.searches() and not reader.following():
        raise PapersError(
            "nothing to watch: `etude papers save NAME QUERY` or `etude papers follow AUTHOR`"
        )
    return waiting(reader, library, open_index(library, show))


def waiting_news(library: Library, reader: Reader, index: Index) -> Waiting:
    """Return what `news` does, from an index as it is, and nothing if there is nothing to watch."""
    from etude.papers.ranking.alerts import waiting

    return waiting(reader, library, index, refresh=False)


def interest_of(library: Library, reader: Reader, show: Show = show_nothing) -> Interest | None:
    """Return what was learnt from a reader's likes; None if there are too few of them."""
    from etude.papers.ranking import Interest

    return Interest.fit(
        library, reader, show=lambda count: show(f"reading {count:,} papers for their words")
    )


def _ranked(
    library: Library,
    reader: Reader,
    rows: list[Row],
    seed: str,
    settings: Settings | None,
    show: Show,
) -> list[Ranked]:
    from etude.papers.ranking import rank

    interest = interest_of(library, reader, show)
    shelf_of = (settings or open_settings()).shelf_of
    ranked = rank(rows, interest, seed=f"{seed} {reader.name}", shelf_of=shelf_of)
    # What the reader has judged already comes last: it is known.
    judged = reader.opinions()
    return sorted(ranked, key=lambda one: one.row["id"] in judged)


def _unknown(ranked: Sequence[Ranked]) -> bool:
    """Say whether all places were given without knowing anything of the reader."""
    return bool(ranked) and not any(_words(one) for one in ranked)


def _words(one: Ranked) -> tuple[tuple[str, float], ...]:
    from etude.papers.ranking.shelf_order import NO_LIKES

    return () if one.why == [(NO_LIKES, 0.0)] else tuple(one.why)


def _listed_ranked(reader: Reader, ranked: Sequence[Ranked]) -> list[ListedPaper]:
    return listed(reader, [one.row for one in ranked], [_words(one) for one in ranked])


def listed(
    reader: Reader,
    rows: Sequence[Row],
    why: Sequence[tuple[tuple[str, float], ...]] | None = None,
) -> list[ListedPaper]:
    """Return papers with what their reader knows of them, in their order."""
    opinions = reader.opinions()
    tags: dict[str, list[str]] = {}
    for tag, ids in reader.tags().items():
        for key in ids:
            tags.setdefault(key, []).append(tag)
    return [
        ListedPaper(row, opinions.get(row["id"], 0), tuple(tags.get(row["id"], ())), words)
        for row, words in zip(rows, why or [()] * len(rows), strict=True)
    ]
