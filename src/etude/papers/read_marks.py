"""Marks of the last paper shown in the alerts of a followed author.

Papers are numbered in order of arrival, and a new version keeps its paper's number: so numbers
above the mark are new papers, and never replacements.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import Connection, ScalarSelect, delete, func, insert, select, update

from etude.store import papers as tables

if TYPE_CHECKING:
    from sqlalchemy import Table

_paper = cast("Table", tables.Paper.__table__)
_marks = cast("Table", tables.Mark.__table__)


def newest() -> ScalarSelect[Any]:
    """Return the number of the last paper, 0 without papers, as a subquery."""
    return select(func.coalesce(func.max(_paper.c.number), 0)).scalar_subquery()


def _key(user: str, author: str) -> str:
    # Hashed, since names may exceed the length of a key.
    return "following:" + hashlib.sha256(f"{user}\n{author}".encode()).hexdigest()[:48]


def begin_following(connection: Connection, user: str, author: str) -> None:
    """Set the mark, so that papers from now on are new."""
    end_following(connection, user, author)
    now = int(connection.execute(select(newest())).scalar_one())
    connection.execute(insert(_marks), [{"key": _key(user, author), "value": now}])


def end_following(connection: Connection, user: str, author: str) -> None:
    """Drop the mark."""
    connection.execute(delete(_marks).where(_marks.c.key == _key(user, author)))


def author_seen(connection: Connection, user: str, author: str) -> int:
    """Return the number of the newest paper when the author's alerts were last shown."""
    wanted = select(_marks.c.value).where(_marks.c.key == _key(user, author))
    return int(connection.execute(wanted).scalar() or 0)


def author_shown(connection: Connection, user: str, author: str, old: int, new: int) -> bool:
    """Move the mark from `old` to `new`; return False if another program moved it first."""
    key = _key(user, author)
    # JSON has no equality on PostgreSQL: lock the row by a write, then read it.
    connection.execute(update(_marks).where(_marks.c.key == key).values(key=key))
    if author_seen(connection, user, author) != old:
        return False
    moved = connection.execute(update(_marks).where(_marks.c.key == key).values(value=new))
    return moved.rowcount > 0
