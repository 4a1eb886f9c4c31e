"""Folder of the index: one writer at a time, and a rebuild if the index is unusable.

    FOLDER/lock      held by the kernel (flock) while a process writes, released with that process
    FOLDER/damaged   written by a reader that found damage: the next writer rebuilds the index
    FOLDER/index/    tantivy's files; a commit replaces meta.json, so readers see all of it or none
    FOLDER/vectors/  embeddings, if there is a model for them

A metadata document, `NOTE`, is rewritten by each commit. It contains the id of the database, the
revision and the format, so none of them can be ahead of the papers beside it.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from etude.core.atomic_files import remove_folder
from etude.core.errors import PapersError
from etude.core.lock import FileLock
from etude.papers.search.text import analyzers

if TYPE_CHECKING:
    import tantivy

FORMAT = 2
"""Format version: increase after changes of the schema, the analyzers or `etude.papers.words`."""

_MAGIC = 1337

NOTE = "*note*"
"""Value of the id field of the metadata document; ids contain no asterisk."""


@dataclass(frozen=True)
class Note:
    """Metadata of an index."""

    format: int
    library: str
    """Id assigned to the database when it was first indexed."""
    revision: int
    """Revision up to which all changes are indexed."""


@dataclass(frozen=True)
class IndexProgress:
    """Progress of a refresh."""

    text: str
    done: int = 0
    total: int | None = None


class DamagedError(Exception):
    """An unusable index; the message gives the reason as a clause."""


def schema() -> tantivy.Schema:
    """Return the schema: it stores only ids and metadata; positions only in fields with phrases."""
    from tantivy import SchemaBuilder

    builder = SchemaBuilder()
    builder.add_text_field("id", stored=True, tokenizer_name="raw", index_option="basic")
    builder.add_text_field("note", stored=True, tokenizer_name="raw", index_option="basic")
    builder.add_text_field("title", tokenizer_name="stems", index_option="position")
    builder.add_text_field("abstract", tokenizer_name="stems", index_option="position")
    builder.add_text_field("author", tokenizer_name="raw", index_option="basic")
    builder.add_text_field("cat", tokenizer_name="raw", index_option="basic")
    # Unstemmed words of titles, for prefixes and suggestions.
    builder.add_text_field("word", tokenizer_name="words", index_option="basic")
    builder.add_unsigned_field("order", fast=True)
    builder.add_unsigned_field("day", indexed=True)
    return builder.build()


@contextmanager
def writing(folder: Path, waits: Callable[[], None]) -> Generator[None]:
    """Hold the folder's lock; if another process holds it, call `waits` once and wait."""
    lock = FileLock(folder / "lock", wait=True, waiting=waits)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise PapersError(f"cannot write the index in {folder}: {error.strerror}") from error
    with lock:
        yield


def create(folder: Path) -> tantivy.Index:
    """Replace the index with an empty one and return it. The caller holds the lock."""
    import tantivy

    place = folder / "index"
    # A reader keeps the files it has open; a new reader finds none, or the new ones.
    with suppress(FileNotFoundError):
        remove_folder(place)
    (folder / "damaged").unlink(missing_ok=True)
    place.mkdir()
    index = tantivy.Index(schema(), path=str(place))
    return _prepared(index)


def opened(folder: Path) -> tantivy.Index | None:
    """Open the index in `folder`; return None if there is none yet.

    Raises `DamagedError` if it is unusable.
    """
    import tantivy

    place = folder / "index"
    if not (place / "meta.json").is_file():
        if place.is_dir() and any(place.iterdir()):
            raise DamagedError("its list of files is missing")
        return None
    with faults():
        index = _prepared(tantivy.Index.open(str(place)))
        index.searcher()
    return index


def _prepared(index: tantivy.Index) -> tantivy.Index:
    for name, analyzer in analyzers().items():
        index.register_tokenizer(name, analyzer)
    index.config_reader(reload_policy="manual")
    return index


def check(folder: Path) -> None:
    """Verify every file of the index against the checksum at its end (about 1 GB/s).

    tantivy does not: it would read a flipped bit and copy it in a merge.
    A file ends with a footer in JSON with the CRC-32 of the content before it, the footer's
    length and a magic number, both of four bytes. Raises `DamagedError`.
    """
    for file in sorted((folder / "index").iterdir()):
        if file.suffix in {".json", ".lock"} or file.name.startswith("."):
            continue
        try:
            with file.open("rb") as data:
                size = data.seek(0, os.SEEK_END)
                data.seek(max(0, size - 8))
                length, magic = struct.unpack("<II", data.read(8))
                if magic != _MAGIC or length > size - 8:
                    raise DamagedError(f"{file.name} has no footer")
                data.seek(size - 8 - length)
                expected = json.loads(data.read(length))["crc"]
                data.seek(0)
                found, left = 0, size - 8 - length
                while left:
                    block = data.read(min(left, 1 << 20))
                    found, left = zlib.crc32(block, found), left - len(block)
        except FileNotFoundError:
            # A merge in another process deletes the files that it replaced.
            continue
        except (OSError, ValueError, KeyError, TypeError, struct.error) as error:
            raise DamagedError(f"{file.name} cannot be read ({_first_line(error)})") from error
        if found != expected:
            raise DamagedError(f"{file.name} does not match its checksum")


def note_of(index: tantivy.Index) -> Note | None:
    """Return the metadata of an index; None before the first commit.

    Raises `DamagedError` if it is malformed, or of another format.
    """
    from tantivy import Query

    with faults():
        searcher = index.searcher()
        if searcher.num_docs == 0:
            return None
        try:
            query = Query.term_query(index.schema, "id", NOTE)
            hits = searcher.search(query, 1).hits
            found = json.loads(searcher.doc(hits[0][1]).get_first("note") or "")
        except (IndexError, ValueError, TypeError) as error:
            raise DamagedError("its metadata is malformed") from error
    if found.get("format") != FORMAT:
        raise DamagedError(f"it has format {found.get('format')}, not {FORMAT}")
    try:
        return Note(**found)
    except TypeError as error:
        raise DamagedError("its metadata is malformed") from error


def written(note: Note) -> str:
    """Return `note` as it is stored."""
    return json.dumps(asdict(note))


@contextmanager
def faults() -> Generator[None]:
    """Convert tantivy's errors about damaged files, panics included, to `DamagedError`."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise DamagedError(_first_line(error)) from error
    except BaseException as error:
        # Panics of tantivy derive from BaseException and have no public name.
        if type(error).__name__ != "PanicException":
            raise
        raise DamagedError(_first_line(error)) from error


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:160]


def report_damage(folder: Path, why: str) -> None:
    """Record that the next refresh must rebuild the index."""
    with suppress(OSError):
        (folder / "damaged").write_text(why + "\n", "utf-8")


def reported_damage(folder: Path) -> str | None:
    """Return the damage that a reader recorded, or None."""
    try:
        return (folder / "damaged").read_text("utf-8").strip() or "a reader found damage"
    except OSError:
        return None
