"""Up to which paper the news of a followed author were shown.

Papers are numbered in the order in which they came, and a new version keeps its paper's number: so
what is above a number is new, and a replacement is not.
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
    """The number of the paper that came last, 0 where there is none; for use in statements."""
    return select(func.coalesce(func.max(_paper.c.number), 0)).scalar_subquery()


def _key(user: str, author: str) -> str:
    # Names are longer than a key may be.
    return "following:" + hashlib.sha256(f"{user}\n{author}".encode()).hexdigest()[:48]


def begin_following(connection: Connection, user: str, author: str) -> None:
    """Count as new what comes from now on."""
    end_following(connection, user, author)
    now = int(connection.execute(select(newest())).scalar_one())
    connection.execute(insert(_marks), [{"key": _key(user, author), "value": now}])


def end_following(connection: Connection, user: str, author: str) -> None:
    """Drop the mark."""
    connection.execute(delete(_marks).where(_marks.c.key == _key(user, author)))


def author_seen(connection: Connection, user: str, author: str) -> int:
    """Number of the newest paper that was there when the author's news were last shown."""
    wanted = select(_marks.c.value).where(_marks.c.key == _key(user, author))
    return int(connection.execute(wanted).scalar() or 0)


def author_shown(connection: Connection, user: str, author: str, old: int, new: int) -> bool:
    """Move the mark from `old` to `new`; False where somebody else moved it first."""
    key = _key(user, author)
    # JSON has no equality on PostgreSQL: the row is locked by a write, then read.
    connection.execute(update(_marks).where(_marks.c.key == key).values(key=key))
    if author_seen(connection, user, author) != old:
        return False
    moved = connection.execute(update(_marks).where(_marks.c.key == key).values(value=new))
    return moved.rowcount > 0
