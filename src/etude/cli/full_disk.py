"""A full disk, at whatever verb: one line that says what was kept.

Where a file is written, `RunError` and its like name it. Everything else that writes (the database,
an index, a library's cache, standard output) ends here, as an exception of whatever type.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress

from etude.core.atomic_files import is_disk_full
from etude.core.errors import EtudeError

_SAID = ("no space left on device", "database or disk is full", "disk quota exceeded")
"""What libraries say whose exceptions carry no error number: SQLite, safetensors, tantivy."""

KEPT: dict[tuple[str, ...], str] = {
    ("practice", "submit"): "earlier submissions and their verdicts are kept",
    ("practice", "run"): "earlier submissions and their verdicts are kept",
    ("practice", "judge"): "submissions that wait stay in the queue, verdicts are kept",
    ("practice",): "earlier submissions, verdicts and progress are kept",
    ("papers", "sync"): "papers that were stored are kept, and the next sync goes on from there",
    (
        "papers",
        "backfill",
    ): "papers that were stored are kept, and the next call goes on from there",
    ("papers", "index"): "all papers are kept; the index is completed by the next search",
    ("papers",): "the papers, marks and settings that were stored are kept",
    ("tune",): "the run's last checkpoint is kept: free some space, then "
    "`etude tune --resume latest`",
    ("search",): "finished trials are kept: free some space, then `etude search --resume latest`",
    ("predict",): "the predictions that were written are whole lines, but for a last one cut short",
    ("chat",): "a chat stores nothing",
    ("models",): "models that were complete are kept",
    ("data",): "the data are unchanged",
}
"""What is kept, by the first words of the command line; the longest match counts."""

_SAYS_KEPT = ("kept", "intact", "unchanged", "nothing was trained", "resume")
"""Words of messages that say what was kept themselves."""

_OTHERWISE = "files that were complete are kept"


def full_disk(error: BaseException, words: Sequence[str]) -> str | None:
    """Return a line for the user if `error` comes from a full disk, else None.

    Args:
        error: what ended the command.
        words: the command line without the program's name.
    """
    for one in _causes(error):
        if isinstance(one, OSError) and is_disk_full(one):
            where = f"{one.filename}: " if one.filename else ""
            return f"{where}the disk is full; {kept(words)}"
        if any(said in str(one).lower() for said in _SAID):
            return f"the disk is full; {kept(words)}"
    return None


def with_kept(error: EtudeError, words: Sequence[str]) -> str:
    """Return an error's message, with what was kept where a full disk is its cause."""
    message = str(error)
    if any(said in message for said in _SAYS_KEPT) or full_disk(error, words) is None:
        return message
    return f"{message}; {kept(words)}"


def kept(words: Sequence[str]) -> str:
    """Return what a command that met a full disk has kept."""
    commands = tuple(word for word in words if not word.startswith("-"))[:2]
    for length in (2, 1):
        if commands[:length] in KEPT:
            return KEPT[commands[:length]]
    return _OTHERWISE


def buffer_output() -> None:
    """Let standard output report what a full disk did not take.

    With PYTHONUNBUFFERED set, as in many containers, a text stream writes to the file itself, and
    drops without an error what a short write left. A buffer between them writes it, or raises.
    """
    stream = sys.stdout
    raw = getattr(stream, "buffer", None)
    if isinstance(raw, io.FileIO):
        copy = io.FileIO(raw.fileno(), "w", closefd=False)
        sys.stdout = io.TextIOWrapper(
            io.BufferedWriter(copy), stream.encoding, stream.errors, line_buffering=True
        )


def silence_output() -> None:
    """Let what is left in standard output's buffer go nowhere, so that the exit says no more."""
    with suppress(OSError, ValueError):
        output = sys.stdout.fileno()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, output)
        os.close(nowhere)


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following
        following = following.__cause__ or following.__context__
