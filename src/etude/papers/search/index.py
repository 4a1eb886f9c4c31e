"""The full-text index of the papers, in a folder apart from the database.

The engine is tantivy, chosen over SQLite's FTS5 by `benchmarks/paper_search.py`. Newest first is
fast because matches are looked for in the newest part of the papers first, in a part as large as
the words' frequencies say is needed; a total that would cost more than the page itself is told as
"at least". Everything the index holds comes from the database: it can be deleted at any time.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from etude.errors import PapersError
from etude.papers.search import folder as place
from etude.papers.search import related
from etude.papers.search.compile import Compiled, Compiler
from etude.papers.search.folder import FORMAT, NOTE, DamagedError, Note, Progress
from etude.papers.search.query import Category, Parsed, described, parse, span, words_of
from etude.papers.search.spelling import FEW, suggestions
from etude.papers.search.text import (
    category_terms,
    joined,
    name_terms,
    order_key,
    plain,
)
from etude.papers.words import glued

if TYPE_CHECKING:
    import tantivy

    from etude.papers.library import Library

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

BATCH = 10_000
"""Papers between two commits: what a kill costs."""

WRITER_MEMORY = 100_000_000
"""Bytes that the engine gathers before it writes a segment, all threads together."""

WRITER_THREADS = 2

COUNTED = 500_000
"""A query that costs less (`Compiled.cost`) is counted to the end; another says "at least"."""

MOST_SCANNED_TIES = 200
"""Beyond a page, this many hits are looked at to put equally relevant ones newest first."""


@dataclass(frozen=True)
class Found:
    """A page of what a search found."""

    ids: list[str]
    total: int
    exact: bool = True
    """Whether `total` is all there are; otherwise there are at least that many."""
    suggestions: tuple[str, ...] = ()
    """The query with its rare words replaced by ones that look alike, best first."""
    explain: str = ""
    """How the query was read, and what was read leniently."""
    scores: list[float] = field(default_factory=list[float])
    """BM25 of each id where the order is by relevance."""

    def counted(self) -> str:
        """The total in words: `1,234`, or `at least 1,234`."""
        return f"{self.total:,}" if self.exact else f"at least {self.total:,}"


class Index:
    """Full-text search over the papers of a library; safe to use from several threads."""

    def __init__(self, folder: Path, library: Library | None = None) -> None:
        """Use the index in `folder`; without a `library` it can be read, not refreshed."""
        self.folder = Path(folder)
        self.library = library
        self._open: tuple[tuple[int, ...], tantivy.Index, tantivy.Searcher, list[int]] | None = None

    # Writing

    def refresh(self, show: Callable[[Progress], None] | None = None) -> int:
        """Take up what changed in the library since the last time; how many papers that were.

        Commits every `BATCH` papers, with the revision that they reach: killed at any point, the
        next call goes on from the last commit and ends in the same index. Another process that
        refreshes is waited for. An index that is damaged, of another format or of another
        database is rebuilt, and `show` (or the log) told why.
        """
        if self.library is None:
            raise PapersError(f"the index in {self.folder} was opened without its database")
        tell = show or _to_log

        def waits() -> None:
            tell(Progress("Waiting for another process that refreshes the index of papers"))

        with place.writing(self.folder, waits):
            index, note = self._usable(self.library, tell)
            try:
                return self._take_up(self.library, index, note, show)
            except (ValueError, OSError) as error:
                raise PapersError(
                    f"the index in {self.folder} cannot be written: {error}; make room, then "
                    "refresh again, which goes on from the last commit"
                ) from error

    def _usable(
        self, library: Library, tell: Callable[[Progress], None]
    ) -> tuple[tantivy.Index, Note]:
        name = library.mark("search:name")
        if name is None:
            name = uuid.uuid4().hex
            library.set_mark("search:name", name)
        fresh = Note(FORMAT, name, 0)
        try:
            if why := place.reported_damage(self.folder):
                raise DamagedError(why)
            index = place.opened(self.folder)
            note = None if index is None else place.note_of(index)
            if note is not None and note.library != name:
                raise DamagedError("it belongs to another database")
            if note is not None and note.revision > int(library.mark("revision") or 0):
                raise DamagedError("it is ahead of the database")
            if index is not None:
                place.check(self.folder)
                return index, note or fresh
        except DamagedError as error:
            tell(Progress(f"The index in {self.folder} is rebuilt from the database: {error}"))
        return place.create(self.folder), fresh

    def _take_up(
        self,
        library: Library,
        index: tantivy.Index,
        note: Note,
        show: Callable[[Progress], None] | None,
    ) -> int:
        writer: tantivy.IndexWriter | None = None
        done = waiting = 0
        revision = newest = note.revision
        total = library.count() if note.revision == 0 else None
        for rows in library.since(note.revision):
            if writer is None:
                writer = index.writer(WRITER_MEMORY, WRITER_THREADS)
            for row in rows:
                put(writer, row)
            done += len(rows)
            waiting += len(rows)
            # The page may end within a revision, so only the one before is known to be complete.
            newest = rows[-1]["revision"]
            revision = max(revision, newest - 1)
            if waiting >= BATCH:
                self._commit(writer, Note(FORMAT, note.library, revision))
                waiting = 0
            if show:
                show(Progress("Indexing papers", done, total))
        if writer is None:
            return 0
        self._commit(writer, Note(FORMAT, note.library, newest))
        writer.wait_merging_threads()
        return done

    @staticmethod
    def _commit(writer: tantivy.IndexWriter, note: Note) -> None:
        from tantivy import Document

        writer.delete_documents_by_term("id", NOTE)
        document = Document()
        document.add_text("id", NOTE)
        document.add_text("note", place.written(note))
        writer.add_document(document)
        writer.commit()

    # Reading

    def search(
        self,
        text: str,
        *,
        order: Literal["newest", "relevance"] = "newest",
        most: int = 20,
        offset: int = 0,
        since: str | date | None = None,
        until: str | date | None = None,
        categories: Sequence[str] | None = None,
    ) -> Found:
        """The papers that `text` asks for, from the `offset`-th on, at most `most`.

        Args:
            text: See `etude.papers.search.query`; empty for all papers.
            order: Newest by day of announcement, then by id; or most relevant first by BM25 with
                titles weighted, of equally relevant ones the newest.
            most: Size of a page.
            offset: How many to leave out before it.
            since: First day of announcement; a string may name a month or year, too.
            until: Last day.
            categories: Papers of any of these only, `cs.CV` or `cs`.

        Raises `QueryError` for a query that cannot be read, and `PapersError` for an index that
        is damaged or of another format; the next `refresh` mends that.
        """
        parsed = parse(text)
        first = span(since)[0] if isinstance(since, str) else since
        last = span(until)[1] if isinstance(until, str) else until
        return self._guarded(
            lambda index, searcher, keys: _Search(index, searcher, keys).run(
                text, parsed, order, max(0, most), max(0, offset), (first, last), categories
            ),
            Found([], 0, explain="nothing is indexed yet"),
        )

    def related(self, paper_id: str, most: int = 10) -> list[tuple[str, float]]:
        """Papers like this one, most alike first, each with a likeness of at most 1.

        By cosine of embeddings where the model is pulled and at least half of the papers (of the
        newest 100,000) went through `embed`; by shared telling words otherwise.

        Raises `PapersError` for an id that the library does not have.
        """
        if self.library is None:
            raise PapersError(f"the index in {self.folder} was opened without its database")
        row = self.library.get(paper_id)
        if row is None:
            raise PapersError(
                f"there is no paper {paper_id!r} here; etude papers sync fetches them"
            )
        found = related.by_meaning(self.folder, row, most, self.count())
        if found is not None:
            return found
        return self._guarded(
            lambda index, searcher, _: related.by_words(index.schema, searcher, row, most), []
        )

    def embed(
        self, show: Callable[[Progress], None] | None = None, limit: int | None = None
    ) -> int:
        """Embed the newest papers that have no vector yet; how many that were.

        For `related`; minutes for a day's papers, hours for 100,000, so it goes on where it was
        killed. `limit` is the most papers of this call. Raises `PapersError` without the model.
        """
        if self.library is None:
            raise PapersError(f"the index in {self.folder} was opened without its database")

        def newest(offset: int, most: int) -> list[str]:
            return self.search("", most=most, offset=offset).ids

        return related.embed_newest(self.folder, self.library, newest, show, limit)

    def count(self) -> int:
        """How many papers are indexed."""
        return self._guarded(lambda _, searcher, __: max(0, searcher.num_docs - 1), 0)

    def revision(self) -> int:
        """The revision of the library that the index has taken up."""

        def read(index: tantivy.Index, _: tantivy.Searcher, __: list[int]) -> int:
            note = place.note_of(index)
            return note.revision if note else 0

        return self._guarded(read, 0)

    def _guarded(
        self,
        work: Callable[[tantivy.Index, tantivy.Searcher, list[int]], _T],
        empty: _T,
    ) -> _T:
        """Do `work` on one snapshot; `empty` where there is no index."""
        try:
            with place.faults():
                found = self._snapshot()
                return empty if found is None else work(*found)
        except DamagedError as error:
            place.report_damage(self.folder, str(error))
            self._open = None
            raise PapersError(
                f"the index in {self.folder} cannot be read: {error}; the next refresh "
                "(etude papers sync) rebuilds it from the database"
            ) from error

    def _snapshot(self) -> tuple[tantivy.Index, tantivy.Searcher, list[int]] | None:
        meta = self.folder / "index" / "meta.json"
        try:
            state = meta.stat()
        except FileNotFoundError:
            return None
        stamp = (state.st_ino, state.st_mtime_ns, meta.parent.stat().st_ino)
        now = self._open
        if now is None or now[0][2] != stamp[2]:
            index = place.opened(self.folder)
            if index is None:
                return None
            place.note_of(index)
        elif now[0] != stamp:
            index = now[1]
            index.reload()
        else:
            return now[1:]
        searcher = index.searcher()
        keys = _ladder(searcher)
        self._open = (stamp, index, searcher, keys)
        return index, searcher, keys


def put(writer: tantivy.IndexWriter, row: dict[str, Any]) -> None:
    """Replace what is indexed of a paper by the `row` of it."""
    from tantivy import Document

    writer.delete_documents_by_term("id", row["id"])
    writer.add_document(document(Document(), row))


def document(empty: tantivy.Document, row: dict[str, Any]) -> tantivy.Document:
    """The fields of a paper's `row`, put into an `empty` document."""
    add = empty.add_text
    add("id", row["id"])
    title, abstract = plain(row["title"]), plain(row["abstract"])
    for name, text in (("title", title), ("abstract", abstract)):
        add(name, text)
        # Each word's parts are a value of their own: phrases do not run across values.
        for pieces in glued(text):
            add(name, " ".join(pieces))
            if name == "title":
                add("word", " ".join(pieces))
        for whole in joined(text):
            add(name, whole)
    add("word", title)
    names: set[str] = set()
    for author in row["authors"]:
        names |= name_terms(author)
    for term in names:
        add("author", term)
    for term in category_terms(row["categories"]):
        add("cat", term)
    empty.add_unsigned("order", order_key(row["announced"], row["id"]))
    return empty


def _to_log(progress: Progress) -> None:
    _log.warning("%s", progress.text)


_STEPS = 64


def _ladder(searcher: tantivy.Searcher) -> list[int]:
    """Keys above which about 1/64, 2/64, ... of the papers are, newest first; days apart."""
    from tantivy import Query

    from etude.papers.search.text import DAY

    width = float(DAY * 8)
    # The engine's annotations leave open what is in its dicts.
    engine: Any = searcher
    counted: dict[str, Any] = engine.aggregate(
        Query.all_query(), {"days": {"histogram": {"field": "order", "interval": width}}}
    )
    buckets: list[tuple[int, int]] = [
        (int(one["key"]), one["doc_count"]) for one in counted["days"]["buckets"]
    ]
    total = sum(count for _, count in buckets)
    keys: list[int] = []
    seen = 0
    for key, count in reversed(buckets):
        seen += count
        while total and len(keys) < _STEPS and seen * _STEPS >= total * (len(keys) + 1):
            keys.append(key)
    return keys


class _Search:
    """One search on one snapshot."""

    def __init__(self, index: tantivy.Index, searcher: tantivy.Searcher, ladder: list[int]) -> None:
        self.searcher = searcher
        self.ladder = ladder
        self.compiler = Compiler(index.schema, searcher)

    def run(
        self,
        text: str,
        parsed: Parsed,
        order: Literal["newest", "relevance"],
        most: int,
        offset: int,
        days: tuple[date | None, date | None],
        categories: Sequence[str] | None,
    ) -> Found:
        compiler = self.compiler
        compiled = compiler.compile(parsed.node)
        said = [described(parsed.node), *parsed.notes]
        if categories is not None:
            named = [compiler.compile(Category(name.lower())) for name in categories]
            compiled = compiler.both(compiled, compiler.either(named))
            said.append("in " + ", ".join(categories))
        if days != (None, None):
            compiled = compiler.both(compiled, compiler.days(*days))
            said.append(f"announced {days[0] or ''}..{days[1] or ''}")
        said += [f"{text}* stands for its most frequent words only" for text in compiler.narrowed]
        scores: list[float] = []
        if order == "relevance" and compiled.scored:
            scores, addresses, total, exact = self.relevant(compiled, most, offset)
            said.append("most relevant first")
        else:
            addresses, total, exact = self.newest(compiled, most, offset)
            said.append("newest first")
        ids = [self.searcher.doc(one).get_first("id") for one in addresses]
        meant: list[str] = []
        if total < FEW and exact:
            meant = suggestions(self.searcher, text, words_of(parsed.node))
        return Found([str(one) for one in ids], total, exact, tuple(meant), "; ".join(said), scores)

    def newest(
        self, compiled: Compiled, most: int, offset: int
    ) -> tuple[list[tantivy.DocAddress], int, bool]:
        wanted = offset + most
        for low in self.windows(compiled, wanted):
            window = compiled
            if low is not None:
                window = self.compiler.both(compiled, self.compiler.keys(low, (1 << 63) - 1))
            # Its annotations lack `count`.
            found: Any = self.searcher.search(
                window.query, max(1, most), count=True, order_by_field="order", offset=offset
            )
            count = int(found.count or 0)
            if low is None or count >= wanted:
                addresses = [address for _, address in found.hits[:most]]
                if low is not None and compiled.cost <= COUNTED:
                    return addresses, self.count(compiled), True
                return addresses, count, low is None
        return [], 0, True

    def windows(self, compiled: Compiled, wanted: int) -> Iterator[int | None]:
        """Lowest keys of ever larger parts of the papers, then None for all."""
        if compiled.cost > COUNTED // 10 and self.ladder:
            # Twice the papers that the rarest word promises: words keep company, fashions change.
            step = 2 * (wanted + 20) * _STEPS / compiled.most
            for factor in (1, 8):
                at = int(step * factor)
                if at < len(self.ladder) // 2:
                    yield self.ladder[at]
        yield None

    def relevant(
        self, compiled: Compiled, most: int, offset: int
    ) -> tuple[list[float], list[tantivy.DocAddress], int, bool]:
        wanted = offset + most
        limit = max(1, wanted + 1)
        while True:
            hits = self.searcher.search(compiled.query, limit, count=False).hits
            # All that are as relevant as the page's last must be known, to put the newest first.
            if len(hits) < limit or hits[-1][0] < hits[max(0, wanted - 1)][0]:
                break
            if limit >= wanted + MOST_SCANNED_TIES:
                break
            limit = min(wanted + MOST_SCANNED_TIES, limit * 2)
        keys = self.searcher.fast_field_values("order", [address for _, address in hits])
        ranked = sorted(
            zip(hits, keys, strict=True), key=lambda pair: (-pair[0][0], -int(pair[1] or 0))
        )[offset:wanted]
        if len(hits) < limit:
            total, exact = len(hits), True
        elif compiled.cost <= COUNTED:
            total, exact = self.count(compiled), True
        else:
            total, exact = len(hits), False
        return [hit[0] for hit, _ in ranked], [hit[1] for hit, _ in ranked], total, exact

    def count(self, compiled: Compiled) -> int:
        query = compiled.query
        found: Any = self.searcher.search(query, 1, count=True, order_by_field="order")
        return int(found.count or 0)
