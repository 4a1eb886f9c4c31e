"""Drafts: the code of a user for each problem, which no second tab can overwrite unseen.

Whoever saves says at which revision their code began. If that is the current one, the draft is
replaced. Otherwise another tab has saved in between: the draft stays, and this code is kept beside
it as a copy of its tab, until the user has seen both and chosen.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, delete, select, update

from etude.core.errors import ProblemError
from etude.store.practice import Draft
from etude.store.upsert import insert_or_ignore, insert_or_update

MOST_CHARACTERS = 256 << 10


@dataclass(frozen=True)
class Saved:
    """A draft, or a copy beside it."""

    source: str
    revision: int
    """Of the draft; of a copy, the revision that it began at."""
    at: float
    """When it was saved, in seconds since 1970."""
    tab: str = ""
    """Empty for the draft itself."""


class Drafts:
    """Drafts of one user.

    Args:
        engine: from `store.engine.open_store`.
        user: name of the user.
        clock: seconds since 1970.
    """

    def __init__(self, engine: Engine, user: str, clock: Callable[[], float] = time.time) -> None:
        self.engine, self.user, self.clock = engine, user, clock

    def read(self, slug: str) -> Saved | None:
        """Return the draft for a problem; None before the first one is saved."""
        with self.engine.connect() as connection:
            return self._read(connection, slug, "")

    def newest(self) -> list[tuple[str, float]]:
        """Return the slugs with a draft and when each was saved, the last saved first."""
        wanted = (
            select(Draft.slug, Draft.saved)
            .where(Draft.user == self.user, Draft.tab == "")
            .order_by(Draft.saved.desc())
        )
        with self.engine.connect() as connection:
            return [(slug, saved) for slug, saved in connection.execute(wanted)]

    def copies(self, slug: str) -> list[Saved]:
        """Return what other tabs have saved beside the draft, the newest first."""
        wanted = (
            select(Draft.source, Draft.revision, Draft.saved, Draft.tab)
            .where(Draft.user == self.user, Draft.slug == slug, Draft.tab != "")
            .order_by(Draft.saved.desc())
        )
        with self.engine.connect() as connection:
            return [Saved(*row) for row in connection.execute(wanted)]

    def save(self, slug: str, source: str, revision: int, tab: str) -> tuple[Saved, bool]:
        """Save the code of a tab.

        Args:
            slug: the problem.
            source: the code.
            revision: at which it began; 0 if there was no draft then.
            tab: name of the tab.

        Returns:
            The draft as it is now, and whether it has this code. If not, another tab has saved in
            between, and this code is a copy.

        Raises:
            ProblemError: it is longer than any submission may be.
        """
        if len(source) > MOST_CHARACTERS:
            raise ProblemError(f"the code is longer than {MOST_CHARACTERS >> 10} KB")
        if not tab:
            raise ProblemError("a draft is saved by a tab with a name")
        now = self.clock()
        own = {"user": self.user, "slug": slug}
        with self.engine.begin() as connection:
            fresh = {**own, "tab": "", "revision": 1, "source": source, "saved": now}
            if revision == 0 and insert_or_ignore(connection, Draft, [fresh]):
                return Saved(source, 1, now), True
            replaced = connection.execute(
                update(Draft)
                .where(
                    Draft.user == self.user,
                    Draft.slug == slug,
                    Draft.tab == "",
                    (Draft.revision == revision) & (Draft.source != source),
                )
                .values(revision=revision + 1, source=source, saved=now)
            )
            current = self._read(connection, slug, "")
            if current is None:  # the draft was removed: this one takes its place
                insert_or_ignore(connection, Draft, [fresh])
                current = Saved(source, 1, now)
            agrees = replaced.rowcount == 1 or current.source == source
            if agrees:
                self._remove(connection, slug, tab)
            else:
                copy = {**own, "tab": tab, "revision": revision, "source": source, "saved": now}
                insert_or_update(connection, Draft, [copy], columns=["source", "saved", "revision"])
            return current, agrees

    def choose(self, slug: str, tab: str, *, copy: bool) -> None:
        """End a conflict: take a tab's copy for the draft, or leave the draft; the copy goes.

        Raises:
            ProblemError: there is no such copy; perhaps another tab has chosen.
        """
        with self.engine.begin() as connection:
            found = self._read(connection, slug, tab) if tab else None
            if found is None:
                raise ProblemError("this copy is no longer there; another tab may have chosen")
            if copy:
                connection.execute(
                    update(Draft)
                    .where(Draft.user == self.user, Draft.slug == slug, Draft.tab == "")
                    .values(revision=Draft.revision + 1, source=found.source, saved=self.clock())
                )
            self._remove(connection, slug, tab)

    def _read(self, connection: Connection, slug: str, tab: str) -> Saved | None:
        wanted = select(Draft.source, Draft.revision, Draft.saved, Draft.tab).where(
            Draft.user == self.user, Draft.slug == slug, Draft.tab == tab
        )
        row = connection.execute(wanted).first()
        return Saved(*row) if row else None

    def _remove(self, connection: Connection, slug: str, tab: str) -> None:
        connection.execute(
            delete(Draft).where(Draft.user == self.user, Draft.slug == slug, Draft.tab == tab)
        )
