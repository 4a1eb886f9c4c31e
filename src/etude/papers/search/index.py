"""Full-text index of the papers, in a folder separate from the database.

The engine is tantivy, chosen over SQLite's FTS5 by `benchmarks/paper_search.py`. The index is
derived completely from the database: it can be deleted at any time.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from etude.core.errors import PapersError
from etude.papers.search import folder as place
from etude.papers.search import related
from etude.papers.search.documents import put
from etude.papers.search.folder import FORMAT, NOTE, DamagedError, IndexProgress, Note
from etude.papers.search.pages import Found, Search, ladder
from etude.papers.search.query import parse, span

if TYPE_CHECKING:
    import tantivy

    from etude.papers.library import Library

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

BATCH = 10_000
"""Papers per commit: the most that is lost when the process is killed."""

WRITER_MEMORY = 100_000_000
"""Bytes that tantivy buffers before it writes a segment, over all threads."""

WRITER_THREADS = 2


class Index:
    """Full-text search over the papers of a library; thread-safe."""

    def __init__(self, folder: Path, library: Library | None = None) -> None:
        """Use the index in `folder`; without a `library` it can be read, not refreshed."""
        self.folder = Path(folder)
        self.library = library
        self._open: tuple[tuple[int, ...], tantivy.Index, tantivy.Searcher, list[int]] | None = None

    # Writing

    def refresh(self, show: Callable[[IndexProgress], None] | None = None) -> int:
        """Index the changes in the library since the last refresh; return the number of papers.

        Commits every `BATCH` papers, with the revision that they reach: killed at any point, the
        next call resumes from the last commit and produces the same index. Waits for another
        process that refreshes. An index that is damaged, of another format or of another database
        is rebuilt, and the reason is passed to `show` (or logged).
        """
        if self.library is None:
            raise PapersError(f"the index in {self.folder} was opened without its database")
        tell = show or _to_log

        def waits() -> None:
            tell(IndexProgress("Waiting for another process that refreshes the index of papers"))

        with place.writing(self.folder, waits):
            index, note = self._usable(self.library, tell)
            try:
                return self._take_up(self.library, index, note, show)
            except (ValueError, OSError) as error:
                raise PapersError(
                    f"the index in {self.folder} cannot be written: {error}; free disk space, then "
                    "refresh again, which resumes from the last commit"
                ) from error

    def _usable(
        self, library: Library, tell: Callable[[IndexProgress], None]
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
            tell(IndexProgress(f"Rebuilding the index in {self.folder} from the database: {error}"))
        return place.create(self.folder), fresh

    def _take_up(
        self,
        library: Library,
        index: tantivy.Index,
        note: Note,
        show: Callable[[IndexProgress], None] | None,
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
                show(IndexProgress("Indexing papers", done, total))
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
        """Return up to `most` papers that match `text`, from the `offset`-th on.

        Args:
            text: See `etude.papers.search.query`; empty for all papers.
            order: Newest by day of announcement, then by id; or most relevant first by BM25 with
                titles weighted, of equally relevant ones the newest.
            most: Maximum number of papers on the page.
            offset: Number of papers to skip before it.
            since: First day of announcement; a string may name a month or year, too.
            until: Last day.
            categories: Papers of any of these only, `cs.CV` or `cs`.

        Raises `QueryError` for an invalid query, and `PapersError` for an index that
        is damaged or of another format; the next `refresh` mends that.
        """
        parsed = parse(text)
        first = span(since)[0] if isinstance(since, str) else since
        last = span(until)[1] if isinstance(until, str) else until
        return self._guarded(
            lambda index, searcher, keys: Search(index, searcher, keys).run(
                text, parsed, order, max(0, most), max(0, offset), (first, last), categories
            ),
            Found([], 0, explain="nothing is indexed yet"),
        )

    def related(self, paper_id: str, most: int = 10) -> list[tuple[str, float]]:
        """Return papers like this one, most similar first, each with a similarity of at most 1.

        By cosine of embeddings if the model is pulled and at least half of the papers (of the
        newest 100,000) are embedded; by shared rare words otherwise.

        Raises `PapersError` for an unknown id.
        """
        if self.library is None:
            raise PapersError(f"the index in {self.folder} was opened without its database")
        row = self.library.get(paper_id)
        if row is None:
            raise PapersError(
                f"paper {paper_id!r} is not in the library; fetch it with `etude papers sync`"
            )
        found = related.by_meaning(self.folder, row, most, self.count())
        if found is not None:
            return found
        return self._guarded(
            lambda index, searcher, _: related.by_words(index.schema, searcher, row, most), []
        )

    def embed(
        self, show: Callable[[IndexProgress], None] | None = None, limit: int | None = None
    ) -> int:
        """Embed the newest papers without a vector; return their number.

        For `related`; minutes for a day's papers, hours for 100,000. It resumes where it was
        killed. `limit` is the maximum number of papers. Raises `PapersError` without the model.
        """
        if self.library is None:
            raise PapersError(f"the index in {self.folder} was opened without its database")

        def newest(offset: int, most: int) -> list[str]:
            return self.search("", most=most, offset=offset).ids

        return related.embed_newest(self.folder, self.library, newest, show, limit)

    def count(self) -> int:
        """Return the number of indexed papers."""
        return self._guarded(lambda _, searcher, __: max(0, searcher.num_docs - 1), 0)

    def revision(self) -> int:
        """Return the revision of the library up to which the index is current."""

        def read(index: tantivy.Index, _: tantivy.Searcher, __: list[int]) -> int:
            note = place.note_of(index)
            return note.revision if note else 0

        return self._guarded(read, 0)

    def _guarded(
        self,
        work: Callable[[tantivy.Index, tantivy.Searcher, list[int]], _T],
        empty: _T,
    ) -> _T:
        """Run `work` on one snapshot; return `empty` without an index."""
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
        keys = ladder(searcher)
        self._open = (stamp, index, searcher, keys)
        return index, searcher, keys


def _to_log(progress: IndexProgress) -> None:
    _log.warning("%s", progress.text)
