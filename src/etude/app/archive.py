"""A user's records as a file: export all of them, import them again, delete them.

An archive is a zip with `etude.json`, from which everything can be read back; for other programs,
each table as CSV, and what was done as statements of xAPI. What is in folders, runs and models, is
not in it: a folder is copied.
"""

from __future__ import annotations

import csv
import io
import json
import zipfile
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import IO, TYPE_CHECKING, Any, cast

from etude.core.errors import EtudeError
from etude.core.version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from sqlalchemy import Engine, Table

    from etude.store.base import Base

FORM = 1
"""Of etude.json."""
CONTENT = "etude.json"
MOST_BYTES = 200_000_000
"""Of etude.json, unpacked."""
MOST_ARCHIVE = 50_000_000
"""Of an archive that is imported."""
_README = """Records of {user}, exported from Etude {version} on {day}.

etude.json     everything, in one file: the page Settings imports it again
*.csv          the same, a table each, for spreadsheets; times are seconds since 1970, UTC
statements.jsonl  what was solved, tried, liked, noted and trained, as xAPI 1.0.3, one a line

Runs and models are folders, not records: copy them as they are.
"""


class ArchiveError(EtudeError):
    """An archive cannot be used."""


@dataclass(frozen=True)
class Imported:
    """What an import did."""

    added: int
    already: int
    """Records that were here."""


@dataclass(frozen=True)
class Deleted:
    """What was deleted."""

    records: int
    freed: int
    """Bytes of the database's files, where that is a file of this machine."""


@dataclass(frozen=True)
class _Kept:
    """A table of a user's records."""

    table: Table
    natural: tuple[str, ...]
    """Columns that tell its rows apart; numbers that the database gave are not kept."""

    @property
    def columns(self) -> list[str]:
        """Return the columns that an archive has."""
        return [one.name for one in self.table.columns if one.name not in ("number", "user")]


def _tables() -> dict[str, _Kept]:
    from etude.store import papers, practice, settings

    natural: dict[type[Base], tuple[str, ...]] = {
        practice.Submission: ("key",),
        practice.Draft: ("slug", "tab"),
        practice.Opening: ("slug",),
        practice.Review: ("concept",),
        practice.Daily: ("day",),
        practice.Explained: ("slug", "at"),
        papers.Opinion: ("id",),
        papers.Tag: ("tag", "id"),
        papers.Note: ("id",),
        papers.Following: ("author",),
        papers.SavedSearch: ("name",),
        settings.Setting: ("key",),
    }
    return {
        kind.__tablename__: _Kept(cast("Table", kind.__table__), columns)
        for kind, columns in natural.items()
    }


def count_records(engine: Engine, user: str) -> dict[str, int]:
    """Return how many records of each table a user has."""
    from sqlalchemy import func, select

    with engine.connect() as connection:
        return {
            name: connection.execute(
                select(func.count()).select_from(one.table).where(one.table.c.user == user)
            ).scalar_one()
            for name, one in _tables().items()
        }


def export_all(engine: Engine, user: str, runs: Path | None = None) -> bytes:
    """Return an archive of all records of a user.

    Args:
        engine: from `store.engine.open_store`.
        user: whose records.
        runs: folder of runs; those that have finished are named in the statements.
    """
    from sqlalchemy import select

    content: dict[str, list[dict[str, Any]]] = {}
    with engine.connect() as connection:
        for name, one in _tables().items():
            wanted = select(*(one.table.c[column] for column in one.columns))
            wanted = wanted.where(one.table.c.user == user).order_by(*one.table.primary_key)
            if name == "practice_submissions":  # what waits belongs to this machine's judge
                wanted = wanted.where(one.table.c.state == "done")
            content[name] = [dict(row) for row in connection.execute(wanted).mappings()]
    day = datetime.now(UTC).date().isoformat()
    whole = {"form": FORM, "etude": __version__, "user": user, "day": day, "tables": content}
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("README.txt", _README.format(user=user, version=__version__, day=day))
        archive.writestr(CONTENT, json.dumps(whole, ensure_ascii=False, indent=1))
        for name, one in _tables().items():
            archive.writestr(f"{name}.csv", _as_csv(one.columns, content[name]))
        archive.writestr("statements.jsonl", _statements(engine, user, content, runs))
    return packed.getvalue()


def _statements(
    engine: Engine, user: str, content: dict[str, list[dict[str, Any]]], runs: Path | None
) -> str:
    from etude.app.runs import list_facts
    from etude.app.statements import as_lines, statements
    from etude.papers.card import card
    from etude.papers.library import Library
    from etude.practice.problem import load_shelf

    named = {row["id"] for table in ("papers_opinions", "papers_notes") for row in content[table]}
    found = statements(
        user,
        content,
        problems={problem.slug: problem.title for problem in load_shelf()},
        papers={row["id"]: card(row).title for row in Library(engine).get_many(sorted(named))},
        runs=list_facts(runs) if runs is not None else (),
    )
    return as_lines(found)


def _as_csv(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_cell(row[column]) for column in columns])
    return text.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    # A spreadsheet would take such a text for a formula.
    return f"'{value}" if isinstance(value, str) and value[:1] in "=+-@\t\r" and value else value


def import_all(engine: Engine, user: str, archive: IO[bytes]) -> Imported:
    """Add the records of an archive to those of a user; what is here already stays as it is.

    Args:
        engine: from `store.engine.open_store`.
        user: whose records they become, whoever exported them.
        archive: a seekable file, from `export_all`.

    Raises:
        ArchiveError: it is no archive, damaged, or from a newer Etude; nothing is imported then.
    """
    from sqlalchemy import insert, select
    from sqlalchemy.exc import SQLAlchemyError

    tables = _tables()
    content = {name: _rows(tables[name], rows) for name, rows in _read(archive, tables).items()}
    added = already = 0
    try:
        with engine.begin() as connection:
            for name, rows in content.items():
                one = tables[name]
                columns = [one.table.c[column] for column in one.natural]
                wanted = select(*columns)
                # The key of a submission is unique among all users.
                if name != "practice_submissions":
                    wanted = wanted.where(one.table.c.user == user)
                here = {tuple(row) for row in connection.execute(wanted)}
                fresh: list[dict[str, Any]] = []
                for row in rows:
                    key = tuple(row[column] for column in one.natural)
                    if key not in here:
                        here.add(key)
                        fresh.append({**row, "user": user})
                if fresh:
                    connection.execute(insert(one.table), fresh)
                added, already = added + len(fresh), already + len(rows) - len(fresh)
    except SQLAlchemyError as error:
        reason = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise ArchiveError(f"its records do not fit this database: {reason}") from error
    return Imported(added, already)


def _read(archive: IO[bytes], tables: Mapping[str, _Kept]) -> dict[str, list[Any]]:
    """Return the tables of an archive."""
    try:
        with zipfile.ZipFile(archive) as packed, packed.open(CONTENT) as stream:
            text = stream.read(MOST_BYTES + 1)
    except (zipfile.BadZipFile, KeyError, OSError, EOFError, RuntimeError, ValueError) as error:
        raise ArchiveError(
            "this is no archive of Etude: choose the zip file that the export gave"
        ) from error
    if len(text) > MOST_BYTES:
        raise ArchiveError(f"{CONTENT} in it is larger than {MOST_BYTES // 1_000_000} MB")
    try:
        whole: Any = json.loads(text, parse_constant=_refuse)
        form, found = whole["form"], whole["tables"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ArchiveError(f"{CONTENT} in it is damaged") from error
    if form != FORM:
        raise ArchiveError("it was exported by a newer Etude: update this one")
    known = isinstance(found, dict) and all(
        name in tables and isinstance(rows, list) for name, rows in cast("Any", found).items()
    )
    if not known:
        raise ArchiveError("it has tables that this Etude does not know: update it")
    return cast("dict[str, list[Any]]", found)


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _rows(one: _Kept, rows: Sequence[Any]) -> list[dict[str, Any]]:
    """Check rows before anything is stored: their columns, and the types of those."""
    kept: list[dict[str, Any]] = []
    for row in rows:
        if not isinstance(row, dict) or set(cast("Any", row)) - set(one.columns):
            raise ArchiveError(f"{one.table.name} has columns that this Etude does not know")
        clean: dict[str, Any] = {}
        for name in one.columns:
            column = one.table.c[name]
            value: Any = cast("dict[str, Any]", row).get(name)
            if name not in row and column.default is not None:
                value = cast("Any", column.default).arg
            if not _fits(value, column):
                raise ArchiveError(f"{one.table.name}: {name} cannot be {value!r:.60}")
            clean[name] = value
        _check(one.table.name, clean)
        kept.append(clean)
    return kept


def _check(table: str, row: Mapping[str, Any]) -> None:
    """Refuse what pages could not show."""
    from etude.practice.judge.verdict import Verdict

    try:
        if table == "practice_submissions":
            if row["state"] != "done":
                raise ValueError("a submission that was not judged")
            Verdict.from_dict(row["verdict"])
        for name in ("due", "day"):
            if name in row:
                date.fromisoformat(row[name])
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ArchiveError(f"{table} has a record that cannot be read: {error}") from error


def _fits(value: Any, column: Any) -> bool:
    from sqlalchemy import JSON

    if isinstance(column.type, JSON):
        return True
    if value is None:
        return bool(column.nullable)
    wanted: type = column.type.python_type
    if isinstance(value, bool) or wanted is bool:
        return isinstance(value, bool) and wanted is bool
    if wanted is str:
        most = column.type.length
        return isinstance(value, str) and (most is None or len(value) <= most) and "\0" not in value
    if wanted is int:
        return isinstance(value, int) and abs(value) < 2**63
    return isinstance(value, int | float) and abs(value) < 1e15  # no NaN


def delete_all(engine: Engine, user: str) -> Deleted:
    """Delete all records of a user, and give the room on the disk back where that is a file."""
    from sqlalchemy import delete, text
    from sqlalchemy.exc import OperationalError

    from etude.store.practice import Profile

    before, records = _bytes(engine), 0
    with engine.begin() as connection:
        for one in _tables().values():
            gone = connection.execute(delete(one.table).where(one.table.c.user == user))
            records += gone.rowcount
        connection.execute(delete(Profile).where(Profile.user == user))
    if engine.dialect.name == "sqlite":
        try:
            with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.execute(text("VACUUM"))
                connection.execute(text("PRAGMA wal_checkpoint(TRUNCATE)"))
        except OperationalError:
            pass  # somebody reads: the room is used again by what comes next
    return Deleted(records, max(0, before - _bytes(engine)))


def _bytes(engine: Engine) -> int:
    """Return the size of a SQLite database with its log; 0 for another one."""
    from pathlib import Path

    name = engine.url.database
    if engine.dialect.name != "sqlite" or not name:
        return 0
    files: list[Path] = [Path(name), Path(f"{name}-wal")]
    return sum(file.stat().st_size for file in files if file.exists())
