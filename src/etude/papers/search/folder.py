"""The index's folder: one writer at a time, and a fresh index where the old one is of no use.

    FOLDER/lock      held by the kernel (flock) while a process writes, gone with that process
    FOLDER/damaged   written by a reader that met a fault: the next writer starts afresh
    FOLDER/index/    tantivy's files; a commit replaces meta.json, so readers see all of it or none
    FOLDER/vectors/  embeddings, where there is a model for them

A document of its own, `NOTE`, is rewritten by each commit. It says which database was read, up to
which revision and in which format, so none of them can be ahead of the papers beside it.
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
"""Grows with every change of the schema, the analyzers or of what `etude.papers.words` finds."""

_MAGIC = 1337

NOTE = "*note*"
"""Stands in the field of ids, where no id can: they have no stars."""


@dataclass(frozen=True)
class Note:
    """What an index holds."""

    format: int
    library: str
    """A word that the database was given when it was first indexed."""
    revision: int
    """Every paper changed up to this revision is in."""


@dataclass(frozen=True)
class IndexProgress:
    """How far a refresh is."""

    text: str
    done: int = 0
    total: int | None = None


class DamagedError(Exception):
    """An index that cannot be used as it is; the message says why, as a clause."""


def schema() -> tantivy.Schema:
    """The fields: nothing is stored but ids and the note; positions only where phrases look."""
    from tantivy import SchemaBuilder

    builder = SchemaBuilder()
    builder.add_text_field("id", stored=True, tokenizer_name="raw", index_option="basic")
    builder.add_text_field("note", stored=True, tokenizer_name="raw", index_option="basic")
    builder.add_text_field("title", tokenizer_name="stems", index_option="position")
    builder.add_text_field("abstract", tokenizer_name="stems", index_option="position")
    builder.add_text_field("author", tokenizer_name="raw", index_option="basic")
    builder.add_text_field("cat", tokenizer_name="raw", index_option="basic")
    # Words of titles as they are written, for prefixes and suggestions.
    builder.add_text_field("word", tokenizer_name="words", index_option="basic")
    builder.add_unsigned_field("order", fast=True)
    builder.add_unsigned_field("day", indexed=True)
    return builder.build()


@contextmanager
def writing(folder: Path, waits: Callable[[], None]) -> Generator[None]:
    """Hold the folder's lock; where another process has it, call `waits` once and wait."""
    lock = FileLock(folder / "lock", wait=True, waiting=waits)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise PapersError(f"cannot write the index in {folder}: {error.strerror}") from error
    with lock:
        yield


def create(folder: Path) -> tantivy.Index:
    """An empty index in place of what is there. The caller holds the lock."""
    import tantivy

    place = folder / "index"
    # A reader that has its files open keeps them; one that opens now finds none, or the new.
    with suppress(FileNotFoundError):
        remove_folder(place)
    (folder / "damaged").unlink(missing_ok=True)
    place.mkdir()
    index = tantivy.Index(schema(), path=str(place))
    return _prepared(index)


def opened(folder: Path) -> tantivy.Index | None:
    """The index in `folder`; None where there is none yet.

    Raises `DamagedError` where there is one that cannot be used.
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
    """Compare every file of the index with the checksum at its own end (about 1 GB a second).

    The engine does not: it would go on from a flipped bit, and write its like again at a merge.
    A file ends with a footer in JSON that holds the CRC-32 of what is before it, the footer's
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
                    raise DamagedError(f"{file.name} has no end")
                data.seek(size - 8 - length)
                expected = json.loads(data.read(length))["crc"]
                data.seek(0)
                found, left = 0, size - 8 - length
                while left:
                    block = data.read(min(left, 1 << 20))
                    found, left = zlib.crc32(block, found), left - len(block)
        except FileNotFoundError:
            # A merge that ends elsewhere deletes what it replaced.
            continue
        except (OSError, ValueError, KeyError, TypeError, struct.error) as error:
            raise DamagedError(f"{file.name} cannot be read ({_first_line(error)})") from error
        if found != expected:
            raise DamagedError(f"{file.name} is not what was written")


def note_of(index: tantivy.Index) -> Note | None:
    """What the index says of itself; None where nothing was ever committed to it.

    Raises `DamagedError` where it says nothing that can be understood, or is of another format.
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
            raise DamagedError("it does not say what it holds") from error
    if found.get("format") != FORMAT:
        raise DamagedError(f"it is of format {found.get('format')}, not {FORMAT}")
    try:
        return Note(**found)
    except TypeError as error:
        raise DamagedError("it does not say what it holds") from error


def written(note: Note) -> str:
    """`note` as it is stored."""
    return json.dumps(asdict(note))


@contextmanager
def faults() -> Generator[None]:
    """Turn what the engine raises over damaged files, panics included, into `DamagedError`."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise DamagedError(_first_line(error)) from error
    except BaseException as error:
        # The engine's panics derive from BaseException and have no public name.
        if type(error).__name__ != "PanicException":
            raise
        raise DamagedError(_first_line(error)) from error


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:160]


def report_damage(folder: Path, why: str) -> None:
    """Leave word that the next refresh must start afresh."""
    with suppress(OSError):
        (folder / "damaged").write_text(why + "\n", "utf-8")


def reported_damage(folder: Path) -> str | None:
    """What a reader left word of."""
    try:
        return (folder / "damaged").read_text("utf-8").strip() or "a reader met a fault"
    except OSError:
        return None
