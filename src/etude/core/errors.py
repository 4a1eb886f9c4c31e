"""Base classes of the errors that a user can cause and correct.

The library raises them; the command line prints the message on one line and exits with code 2. A
message says what is wrong, where, and what to do, so callers add nothing.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


class EtudeError(Exception):
    """Base of all errors caused by the input or the machine, never by a bug in Etude."""


class RenamedError(EtudeError):
    """A command or an option that has been renamed."""


class MissingExtraError(EtudeError):
    """A feature whose optional dependencies are not installed."""


class RecipeError(EtudeError):
    """A recipe that cannot be run: unknown key, wrong type, options that exclude each other."""


class DataError(EtudeError):
    """Data that would train nothing, or something other than intended."""


class ModelError(EtudeError):
    """A model that is unknown, incomplete, damaged or unsupported."""


class AdapterError(EtudeError):
    """An adapter that is damaged, or that belongs to another model."""


class NoTargetMatchedError(AdapterError):
    """A target name or pattern that matches no module of the model."""


class RunError(EtudeError):
    """A run that cannot start, resume or be read: locked folder, full disk, diverged loss."""


class InsufficientMemoryError(RunError):
    """A run that would need more memory than is available."""


class DivergedError(RunError):
    """A loss or gradient that is not finite; the last good checkpoint remains."""


class LockHeldError(EtudeError):
    """A lock that another process, or another part of this one, holds.

    Args:
        file: the lock file.
        pid: of the holder; None where it is unknown.
    """

    def __init__(self, file: Path, pid: int | None) -> None:
        holder = f"process {pid}" if pid is not None else "another process"
        super().__init__(f"{file} is locked by {holder}; wait for it to end or stop it")
        self.file, self.pid = file, pid


class StoreError(EtudeError):
    """A database that cannot be opened, read or written."""


class QueueFullError(EtudeError):
    """More submissions wait than the judge can answer in a reasonable time."""


class ProblemError(EtudeError):
    """A practice problem that is unknown, incomplete or inconsistent."""


class JudgeError(EtudeError):
    """A judge that cannot start, or lacks the required isolation."""


class ChatError(EtudeError):
    """A language model's endpoint that is misconfigured, unreachable or gives no usable answer."""


class PapersError(EtudeError):
    """A paper, category, file or source of the reading room that cannot be used as requested."""


class SourceError(PapersError):
    """A source of papers that is down, asks to wait, or refuses a request."""


class QueryError(PapersError):
    """A search for papers with a syntax error; the message gives the error and its position."""


class SourceDownError(SourceError):
    """A source of papers that gives no usable answer, so that further requests are pointless."""


def nearest(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """Return the `count` names of `known` most similar to `name`, best first."""
    return difflib.get_close_matches(name, sorted(set(known)), n=count, cutoff=0.4)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ` (did you mean 'x'?)` for the nearest known name, or an empty string."""
    close = nearest(name, known, 1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def innermost_reason(error: BaseException) -> str:
    """Return the first line of the innermost cause, or its type where it has no message."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
