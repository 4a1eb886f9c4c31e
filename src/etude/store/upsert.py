"""Upserts (insert or ignore, insert or update) for SQLite and PostgreSQL, in one statement each.

Selecting a row first and inserting it afterwards fails where two programs do so at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from sqlalchemy import ColumnElement, Connection, Executable, Table
from sqlalchemy.dialects import sqlite

from etude.store.base import Base

Row = Mapping[str, Any]


def insert_or_ignore(connection: Connection, table: Table | type[Base], rows: Sequence[Row]) -> int:
    """Insert the rows that violate no unique constraint, in order; return their number.

    Args:
        connection: with the caller's transaction.
        table: the table or its class.
        rows: a value for each column; a single row may contain SQL expressions.
    """
    return _execute(connection, _insert(connection, table).on_conflict_do_nothing(), rows)


def insert_or_update(
    connection: Connection,
    table: Table | type[Base],
    rows: Sequence[Row],
    *,
    columns: Sequence[str],
    where: ColumnElement[bool] | None = None,
) -> int:
    """Insert rows, and set `columns` of those whose primary key exists.

    Args:
        connection: with the caller's transaction.
        table: the table or its class.
        rows: a value for each column; a single row may contain SQL expressions.
        columns: columns to take from the new row.
        where: update the old row only if this holds; the table's columns refer to the old
            row. None always updates.

    Returns:
        Number of rows inserted or updated.
    """
    target = _table(table)
    statement = _insert(connection, target)
    new = statement.excluded
    statement = statement.on_conflict_do_update(
        index_elements=list(target.primary_key.columns),
        set_={name: new[name] for name in columns},
        where=where,
    )
    return _execute(connection, statement, rows)


def _table(table: Table | type[Base]) -> Table:
    return table if isinstance(table, Table) else cast("Table", table.__table__)


def _insert(connection: Connection, table: Table | type[Base]) -> Any:
    if connection.dialect.name == "postgresql":
        from sqlalchemy.dialects import postgresql  # 0.1 s, which SQLite does without

        return postgresql.insert(_table(table))
    return sqlite.insert(_table(table))


def _execute(connection: Connection, statement: Any, rows: Sequence[Row]) -> int:
    if not rows:
        return 0
    # PostgreSQL's count of inserted rows is dropped unless requested.
    options = {"preserve_rowcount": True}
    if len(rows) == 1:
        single = cast("Executable", statement.values(dict(rows[0])))
        return connection.execute(single, execution_options=options).rowcount
    return connection.execute(
        cast("Executable", statement), [dict(row) for row in rows], execution_options=options
    ).rowcount
