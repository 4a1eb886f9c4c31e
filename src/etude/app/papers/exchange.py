"""Papers out and in: files for other programs, and the digest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from etude.app.papers.opening import Show, iso_day, open_index, paper_id, show_nothing, tagged
from etude.core.errors import PapersError

if TYPE_CHECKING:
    from etude.papers.digest import Digest, Extra
    from etude.papers.library import Library
    from etude.papers.ranking.alerts import Waiting
    from etude.papers.reader import Reader
    from etude.papers.search import Index
    from etude.papers.settings import Settings


@dataclass(frozen=True)
class Selection:
    """Which papers are meant: those of any of these, each once, in this order."""

    ids: Sequence[str] = ()
    """arXiv ids or URLs."""
    tag: str | None = None
    """Papers with this tag."""
    liked: bool = False
    """Papers that the reader liked."""
    search: str | None = None
    """Papers that this query finds."""
    day: str | None = None
    """Papers announced on this day, YYYY-MM-DD."""
    everything: bool = False
    """All papers; as JSON, with the reader's likes, tags and searches."""
    limit: int = 100_000
    """Maximum number of papers."""


@dataclass(frozen=True)
class Export:
    """Papers as text for other programs."""

    text: str
    papers: int
    missing: list[str]
    """Ids that were asked for and are not in the library."""


@dataclass(frozen=True)
class Imported:
    """What a file brought."""

    entries: int
    added: int
    """Papers that were not in the library before."""
    changed: int
    """Likes, tags and searches that were taken over."""
    without_id: int
    """Entries without an arXiv id."""
    not_here: int
    """Entries with an id of a paper that the library does not have."""


@dataclass(frozen=True)
class MadeDigest:
    """A digest, and the news in it: call `news.shown()` once it has reached its reader."""

    digest: Digest
    news: Waiting


def export_format(form: str, output: Path | None, *, everything: bool = False) -> str:
    """Return the format to export in: the one named, or the one that the file's suffix means."""
    from etude.papers.exchange import SUFFIXES

    endings = {suffix: name for name, suffix in reversed(SUFFIXES.items())}
    guessed = endings.get(output.suffix.lower(), "") if output else ""
    if everything and guessed == "csl-json":
        guessed = "json"  # of the two that end so, the one that loses nothing
    return form or guessed or ("json" if everything else "bibtex")


def export_papers(
    library: Library,
    reader: Reader,
    chosen: Selection,
    form: str,
    *,
    index: Index | None = None,
    show: Show = show_nothing,
) -> Export:
    """Write papers in a format of `etude.papers.exchange`.

    Args:
        library: where the papers are.
        reader: whose tags and likes are meant.
        chosen: which papers.
        form: the format.
        index: used as it is; None opens it and brings it up to date.
        show: called with what is being done.

    Raises:
        PapersError: no paper is meant, or the format, an id, a tag or the query is wrong.
    """
    from etude.papers.exchange import write
    from etude.papers.exchange.whole import with_listings

    keys = [paper_id(text) for text in chosen.ids]
    if chosen.tag is not None:
        keys += tagged(reader, chosen.tag)
    if chosen.liked:
        keys += [key for key, value in reader.opinions().items() if value > 0]
    if chosen.search is not None:
        keys += (index or open_index(library, show)).search(chosen.search, most=chosen.limit).ids
    if chosen.day is not None:
        keys += [row["id"] for row in library.day(iso_day(chosen.day))]
    if chosen.everything:
        keys += [row["id"] for page in library.since(0) for row in page]
    keys = list(dict.fromkeys(keys))[: chosen.limit]
    if not keys and not chosen.everything:
        asked = chosen.liked or chosen.search is not None or chosen.day is not None
        raise PapersError(
            "nothing to export: no paper is meant by that"
            if asked
            else "nothing to export: give ids, --tag, --liked, --search, --day or --everything"
        )
    rows = library.get_many(keys)
    if form == "json":
        rows = with_listings(library, rows)
    whole = chosen.everything and form == "json"
    text = write(rows, form, reader=reader.export() if whole else None)
    present = {row["id"] for row in rows}
    return Export(text, len(rows), [key for key in keys if key not in present])


def import_papers(
    library: Library,
    reader: Reader,
    file: Path,
    form: str | None = None,
    *,
    tag: str | None = None,
    like: bool = False,
) -> Imported:
    """Read papers and, from Etude's own JSON, likes, tags and searches.

    Args:
        library: where the papers go.
        reader: whose likes and tags are changed.
        file: in a format of `etude.papers.exchange`.
        form: its format; None goes by its suffix and content.
        tag: put this tag on the papers.
        like: like the papers.

    Raises:
        PapersError: the file cannot be read, or there is no entry in it.
    """
    from etude.papers.exchange import read_file
    from etude.papers.exchange.whole import restore

    contents = read_file(file, form)
    if not contents.entries and contents.reader is None:
        raise PapersError(f"{file}: there is no entry in it; --format says what it is")
    before = library.count()
    restore(library, contents.entries)
    changed = reader.restore(contents.reader) if contents.reader is not None else 0
    known = [row["id"] for row in library.get_many(contents.ids)]
    for key in known:
        if tag is not None:
            reader.tag(key, tag)
        if like:
            reader.like(key)
    return Imported(
        entries=len(contents.entries),
        added=library.count() - before,
        changed=changed,
        without_id=len(contents.unknown),
        not_here=len(contents.ids) - len(known),
    )


def make_digest(
    library: Library,
    reader: Reader,
    settings: Settings,
    *,
    day: str | None = None,
    limit: int = 12,
    problem: bool = True,
    show: Show = show_nothing,
) -> MadeDigest:
    """Make a digest: papers by shelf, news of searches, and the problem of the day.

    Args:
        library: where the papers are.
        reader: for whom it is made.
        settings: name the shelves.
        day: YYYY-MM-DD; None is the last day with papers.
        limit: maximum number of papers per shelf.
        problem: include the problem of the day.
        show: called with what is being done.
    """
    from etude.papers.digest import digest
    from etude.papers.ranking import waiting

    news = waiting(reader, library, open_index(library, show))
    show("making the digest")
    made = digest(
        library,
        settings,
        reader,
        day=iso_day(day) if day else None,
        most=limit,
        alerts=news.alerts,
        problem=_problem_of_the_day() if problem else None,
    )
    return MadeDigest(made, news)


def _problem_of_the_day() -> Extra:
    from etude.app.practice import daily_problem
    from etude.papers.digest import Extra

    choice = daily_problem().choice
    how = f"etude practice start {choice.problem.slug}"
    text = f"{choice.problem.front.difficulty}, {choice.problem.collection}: {how}"
    return Extra(choice.problem.title, text)
