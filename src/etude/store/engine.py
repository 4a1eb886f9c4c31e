"""Opens the database and migrates its tables to the current version.

`ETUDE_DATABASE` replaces the SQLite file in Etude's data folder, for example
`postgresql+psycopg://user@host/etude`. A database migrated by a newer Etude is not touched.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, ExceptionContext, create_engine, event, inspect, text
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from etude.core.errors import StoreError
from etude.core.extras import require_extra
from etude.core.machine import disk_free
from etude.core.paths import home

HEAD = "0007"
MIGRATIONS = Path(__file__).parent / "migrations"
BUSY_SECONDS = 30
_SHARED_MEMORY = 32 * 1024
"""Bytes by which SQLite's file of shared memory grows."""


def database_address() -> str:
    """Return the URL of the database, from the environment or the data folder."""
    chosen = os.environ.get("ETUDE_DATABASE", "")
    if chosen.startswith("postgresql://"):
        return chosen.replace("postgresql://", "postgresql+psycopg://", 1)
    return chosen or f"sqlite:///{home() / 'etude.sqlite3'}"


def open_store(address: str | None = None) -> Engine:
    """Open the database, creating or migrating it where needed.

    Raises:
        MissingExtraError: the driver for PostgreSQL is not installed.
        StoreError: it cannot be reached or written, is damaged, or belongs to a newer Etude.
    """
    address = address or database_address()
    if address.startswith("postgresql+psycopg:"):
        require_extra("postgres", "a PostgreSQL database", "psycopg")
    try:
        if address.startswith("sqlite:///"):
            Path(address.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        engine = create_engine(address, pool_pre_ping=not address.startswith("sqlite"))
        if engine.dialect.name == "sqlite":
            event.listen(engine, "connect", _prepare_sqlite)
            event.listen(engine, "handle_error", _name_full_disk)
        _migrate(engine)
    except (SQLAlchemyError, OSError, ImportError) as error:
        first = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        raise StoreError(f"the database cannot be opened: {first} ({_shown(address)})") from error
    return engine


def _shown(address: str) -> str:
    """Return a database URL without its password."""
    head, _, tail = address.rpartition("@")
    return f"{head.split('://')[0]}://…@{tail}" if head else address


def _name_full_disk(context: ExceptionContext) -> None:
    """Name a full disk where SQLite speaks of an I/O error: its shared memory could not grow."""
    file = None if context.engine is None else context.engine.url.database
    said = str(context.original_exception)
    if file and "disk I/O error" in said and disk_free(file) < _SHARED_MEMORY:
        full = sqlite3.OperationalError("database or disk is full")
        raise OperationalError(context.statement, None, full)


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}")
    cursor.execute("PRAGMA journal_mode = WAL")
    # A submission that was accepted must survive a power cut.
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def schema_version(engine: Engine) -> str | None:
    """Return the schema version, None where there are no tables yet."""
    with engine.connect() as connection:
        if not inspect(connection).has_table("alembic_version"):
            return None
        return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _migrate(engine: Engine) -> None:
    version = schema_version(engine)
    if version == HEAD:
        return
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if version is not None and version not in known:
        raise StoreError(
            f"the database was migrated by a newer Etude (schema version {version}, "
            f"this Etude supports {HEAD}): update Etude"
        )
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            # Of two processes that start at once, the second finds the migration done.
            connection.execute(text("SELECT pg_advisory_xact_lock(7213001)"))
        else:
            connection.exec_driver_sql("PRAGMA user_version = 1")  # takes the write lock
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
