"""A user's feedback on papers: opinions, tags, notes, followed authors, saved searches.

Each change is one SQL statement, so concurrent programs cannot undo each other's changes. All of it
can be exported as one plain dictionary and imported again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import Connection, Engine, delete, func, or_, select

from etude.core.errors import PapersError, did_you_mean
from etude.papers.authors import same_author
from etude.papers.feedback_checks import (
    FORMAT,
    LONGEST_NAME,
    LONGEST_QUERY,
    VERSION,
    author_name,
    checked_entries,
    identifier,
    name_line,
    note_lines,
)
from etude.papers.read_marks import begin_following, end_following, newest
from etude.store import papers as tables
from etude.store.upsert import insert_or_ignore, insert_or_update

if TYPE_CHECKING:
    from sqlalchemy import Table


_paper = cast("Table", tables.Paper.__table__)
_opinion = cast("Table", tables.Opinion.__table__)
_tag = cast("Table", tables.Tag.__table__)
_note = cast("Table", tables.Note.__table__)
_following = cast("Table", tables.Following.__table__)
_search = cast("Table", tables.SavedSearch.__table__)


@dataclass(frozen=True, slots=True)
class Search:
    """A saved search."""

    name: str
    query: str
    seen: int
    """Number of the newest paper when its alerts were last shown."""


class Reader:
    """Feedback of one user in one database.

    Args:
        engine: from `store.engine.open_store`.
        name: name of the user, at most 80 characters.
        clock: seconds since 1970.

    Raises:
        PapersError: the name is empty or too long.
    """

    def __init__(self, engine: Engine, name: str, clock: Callable[[], float] = time.time) -> None:
        self.engine, self.clock = engine, clock
        self.name = name_line(name, "a reader's name", LONGEST_NAME)

    # -- opinions ------------------------------------------------------------------------------

    def like(self, paper_id: str) -> bool:
        """Like a paper; return True if that is a change.

        Raises:
            PapersError: `paper_id` is not an arXiv id, or not in the library.
        """
        return self._opine(paper_id, 1)

    def dislike(self, paper_id: str) -> bool:
        """Dislike a paper; see `like`."""
        return self._opine(paper_id, -1)

    def _opine(self, paper_id: str, value: int) -> bool:
        key = identifier(paper_id)
        with self.engine.begin() as connection:
            _must_be_kept(connection, key)
            return self._put_opinion(connection, key, value, self.clock(), later=False)

    def _put_opinion(
        self, connection: Connection, key: str, value: int, at: float, *, later: bool
    ) -> bool:
        """Store an opinion; with `later`, only if it is newer than the stored one."""
        old = _opinion.c
        younger = or_(old.at < at, (old.at == at) & (old.value < value))
        row = {"user": self.name, "id": key, "value": value, "at": at}
        changed = insert_or_update(
            connection,
            _opinion,
            [row],
            columns=["value", "at"],
            where=younger if later else old.value != value,
        )
        return changed > 0

    def unlike(self, paper_id: str) -> bool:
        """Remove an opinion; return False if there was none."""
        return self._remove(_opinion, id=identifier(paper_id))

    def opinions(self) -> dict[str, int]:
        """Return ids with 1 (liked) or -1 (disliked), in order of time."""
        with self.engine.connect() as connection:
            return {row.id: row.value for row in self._rows(connection, _opinion, "at", "id")}

    # -- tags ----------------------------------------------------------------------------------

    def tag(self, paper_id: str, tag: str) -> bool:
        """Tag a paper; return True if the tag is new on it.

        Raises:
            PapersError: the tag is empty or too long, or the paper is not in the library.
        """
        key, tag = identifier(paper_id), name_line(tag, "a tag", LONGEST_NAME)
        with self.engine.begin() as connection:
            _must_be_kept(connection, key)
            return self._add(connection, _tag, tag=tag, id=key, at=self.clock())

    def untag(self, paper_id: str, tag: str) -> bool:
        """Remove a tag from a paper; return False if the paper does not have it."""
        return self._remove(
            _tag, id=identifier(paper_id), tag=name_line(tag, "a tag", LONGEST_NAME)
        )

    def tags(self) -> dict[str, list[str]]:
        """Return each tag with the ids of its papers, last tagged first."""
        found: dict[str, list[str]] = {}
        with self.engine.connect() as connection:
            for row in self._rows(connection, _tag, "tag", "at", "id"):
                found.setdefault(row.tag, []).insert(0, row.id)
        return found

    def tags_of(self, paper_id: str) -> list[str]:
        """Return the tags of one paper, in alphabetical order."""
        key = identifier(paper_id)
        with self.engine.connect() as connection:
            wanted = select(_tag.c.tag).where(_tag.c.user == self.name, _tag.c.id == key)
            return sorted(connection.scalars(wanted))

    # -- notes ---------------------------------------------------------------------------------

    def note(self, paper_id: str, text: str) -> bool:
        """Write the note on a paper; an empty text removes it. Return True if it changed.

        Raises:
            PapersError: the note is too long, or the paper is not in the library.
        """
        key, text = identifier(paper_id), note_lines(text)
        if not text:
            return self._remove(_note, id=key)
        with self.engine.begin() as connection:
            _must_be_kept(connection, key)
            return self._put_note(connection, key, text, self.clock(), later=False)

    def _put_note(
        self, connection: Connection, key: str, text: str, at: float, *, later: bool
    ) -> bool:
        old = _note.c
        younger = or_(old.at < at, (old.at == at) & (old.text < text))
        row = {"user": self.name, "id": key, "text": text, "at": at}
        changed = insert_or_update(
            connection,
            _note,
            [row],
            columns=["text", "at"],
            where=(old.text != text) & younger if later else old.text != text,
        )
        return changed > 0

    def notes(self) -> dict[str, str]:
        """Return the notes by paper, last written first."""
        with self.engine.connect() as connection:
            rows = list(self._rows(connection, _note, "at", "id"))
        return {row.id: row.text for row in reversed(rows)}

    def note_of(self, paper_id: str) -> str:
        """Return the note on a paper, empty if there is none."""
        key = identifier(paper_id)
        with self.engine.connect() as connection:
            wanted = select(_note.c.text).where(_note.c.user == self.name, _note.c.id == key)
            return connection.execute(wanted).scalar() or ""

    # -- authors -------------------------------------------------------------------------------

    def follow(self, author: str) -> bool:
        """Follow an author in any spelling of the name; return True if that is a change.

        Raises:
            PapersError: the name is empty or too long.
        """
        author = author_name(author)
        with self.engine.begin() as connection:
            return self._follow(connection, author, self.clock())

    def _follow(self, connection: Connection, author: str, at: float) -> bool:
        if not self._add(connection, _following, author=author, at=at):
            return False
        begin_following(connection, self.name, author)
        return True

    def unfollow(self, author: str) -> list[str]:
        """Unfollow an author; return the names that were removed.

        Removes the exact name if it is followed, else all names that may be the same person.
        """
        author = author_name(author)
        followed = self.following()
        names = [name for name in followed if name == author] or [
            name for name in followed if same_author(author, name)
        ]
        with self.engine.begin() as connection:
            dropped = [name for name in names if self._delete(connection, _following, author=name)]
            for name in dropped:
                end_following(connection, self.name, name)
        return dropped

    def following(self) -> list[str]:
        """Return the followed authors as entered, in order of time."""
        with self.engine.connect() as connection:
            return [row.author for row in self._rows(connection, _following, "at", "author")]

    # -- searches ------------------------------------------------------------------------------

    def save_search(self, name: str, query: str) -> bool:
        """Save a search; its alerts start with papers from now on. Return True if it changed.

        An existing name gets the new query.

        Raises:
            PapersError: name or query is empty or too long.
        """
        name = name_line(name, "the name of a search", LONGEST_NAME)
        query = name_line(query, "a search", LONGEST_QUERY)
        with self.engine.begin() as connection:
            return self._put_search(connection, name, query, self.clock(), later=False)

    def _put_search(
        self, connection: Connection, name: str, query: str, at: float, *, later: bool
    ) -> bool:
        old = _search.c
        differs = old.query != query
        younger = or_(old.at < at, (old.at == at) & (old.query < query))
        row = {"user": self.name, "name": name, "query": query, "seen": newest(), "at": at}
        # `seen` is unchanged for the same query: pending alerts must not be lost.
        changed = insert_or_update(
            connection,
            _search,
            [row],
            columns=["query", "seen", "at"],
            where=differs & younger if later else differs,
        )
        return changed > 0

    def searches(self) -> list[Search]:
        """Return the saved searches in alphabetical order."""
        with self.engine.connect() as connection:
            rows = self._rows(connection, _search, "name")
            return [Search(row.name, row.query, row.seen) for row in rows]

    def search(self, name: str) -> Search:
        """Return the saved search of that name.

        Raises:
            PapersError: no saved search has this name.
        """
        known = {search.name: search for search in self.searches()}
        if name not in known:
            raise PapersError(f"no saved search is named {name!r}{did_you_mean(name, known)}")
        return known[name]

    def drop_search(self, name: str) -> bool:
        """Delete a saved search; return False if there is none of that name."""
        return self._remove(_search, name=name_line(name, "the name of a search", LONGEST_NAME))

    def stamp(self) -> str:
        """Return a text that changes with all that ranks: opinions, tags, followed authors.

        Empty if there is nothing of it.
        """
        parts: list[str] = []
        with self.engine.connect() as connection:
            for table in (_opinion, _tag, _following):
                count, last, total = connection.execute(
                    select(func.count(), func.max(table.c.at), func.sum(table.c.at)).where(
                        table.c.user == self.name
                    )
                ).one()
                parts.append(f"{count}:{last}:{total}" if count else "")
        return "/".join(parts) if any(parts) else ""

    # -- all of it -----------------------------------------------------------------------------

    def export(self) -> dict[str, Any]:
        """Return all feedback as JSON-serialisable values."""
        with self.engine.connect() as connection:
            return {
                "format": FORMAT,
                "version": VERSION,
                "opinions": [
                    {"id": row.id, "value": row.value, "at": row.at}
                    for row in self._rows(connection, _opinion, "at", "id")
                ],
                "tags": [
                    {"id": row.id, "tag": row.tag, "at": row.at}
                    for row in self._rows(connection, _tag, "at", "tag", "id")
                ],
                "notes": [
                    {"id": row.id, "text": row.text, "at": row.at}
                    for row in self._rows(connection, _note, "at", "id")
                ],
                "following": [
                    {"author": row.author, "at": row.at}
                    for row in self._rows(connection, _following, "at", "author")
                ],
                "searches": [
                    {"name": row.name, "query": row.query, "at": row.at}
                    for row in self._rows(connection, _search, "name")
                ],
            }

    def restore(self, kept: Any) -> int:
        """Merge the result of `export`; return the number of entries that changed something.

        Of two opinions or notes on a paper, the newer one wins. Papers need not be in the library
        yet, so that feedback can be imported before them. The import is atomic.

        Raises:
            PapersError: `kept` is not a result of `export`, or was written by a newer Etude.
        """
        entries = checked_entries(kept)
        with self.engine.begin() as connection:
            changed = [
                self._put_opinion(connection, one["id"], one["value"], one["at"], later=True)
                for one in entries["opinions"]
            ]
            changed += [self._add(connection, _tag, **one) for one in entries["tags"]]
            changed += [
                self._put_note(connection, one["id"], one["text"], one["at"], later=True)
                for one in entries["notes"]
            ]
            changed += [
                self._follow(connection, one["author"], one["at"]) for one in entries["following"]
            ]
            changed += [
                self._put_search(connection, one["name"], one["query"], one["at"], later=True)
                for one in entries["searches"]
            ]
        return sum(changed)

    # -- statements ----------------------------------------------------------------------------

    def _rows(self, connection: Connection, table: Table, *order: str) -> Iterable[Any]:
        columns = [table.c[name] for name in order]
        return connection.execute(select(table).where(table.c.user == self.name).order_by(*columns))

    def _add(self, connection: Connection, table: Table, **values: Any) -> bool:
        return insert_or_ignore(connection, table, [{"user": self.name, **values}]) > 0

    def _delete(self, connection: Connection, table: Table, **where: Any) -> bool:
        statement = delete(table).where(table.c.user == self.name)
        for name, value in where.items():
            statement = statement.where(table.c[name] == value)
        return connection.execute(statement).rowcount > 0

    def _remove(self, table: Table, **where: Any) -> bool:
        with self.engine.begin() as connection:
            return self._delete(connection, table, **where)


def _must_be_kept(connection: Connection, key: str) -> None:
    if connection.execute(select(_paper.c.number).where(_paper.c.id == key)).first() is None:
        raise PapersError(f"paper {key} is not in the library; fetch it with `etude papers sync`")
