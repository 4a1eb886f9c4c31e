"""The newest papers of a library, as feeds want them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import select

from etude.papers.library import Library
from etude.store.papers import Paper

_PAGE = 500
_MOST_READ = 20_000
"""Papers that are looked through for a category that hardly ever comes."""


def newest(
    library: Library, categories: Collection[str] | None = None, *, most: int = 200
) -> list[dict[str, Any]]:
    """Up to `most` papers of any of `categories`, the one announced last first.

    A new version of a paper does not bring it up again: it keeps the day on which it was new.
    """
    wanted = None if categories is None else set(categories)
    found: list[dict[str, Any]] = []
    with library.engine.connect() as connection:
        for start in range(0, _MOST_READ, _PAGE):
            statement = select(Paper.id, Paper.categories)
            statement = statement.order_by(Paper.announced.desc(), Paper.number.desc())
            rows = connection.execute(statement.offset(start).limit(_PAGE)).all()
            keys = [row.id for row in rows if wanted is None or wanted & set(row.categories)]
            found += library.get_many(keys[: most - len(found)])
            if len(found) >= most or len(rows) < _PAGE:
                break
    return found
