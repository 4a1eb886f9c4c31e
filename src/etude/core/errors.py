"""Every error that a person can cause and mend.

The command line prints the message on one line and leaves with exit code 2; the library
raises it. A message says what is wrong, where, and what to do: the caller adds nothing.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


class EtudeError(Exception):
    """Base of all errors that are the input's or the machine's, never a bug of ours."""


class RenamedError(EtudeError):
    """A command or an option that has another name now."""


class MissingExtraError(EtudeError):
    """A feature whose optional dependencies are not installed."""


class RecipeError(EtudeError):
    """A recipe that cannot be run: unknown key, wrong type, options that exclude each other."""


class DataError(EtudeError):
    """Data that would train nothing, or something else than the person meant."""


class ModelError(EtudeError):
    """A model that is unknown, incomplete, damaged or of a kind not supported."""


class AdapterError(EtudeError):
    """An adapter that is damaged, or that belongs to another model."""


class NoTargetMatchedError(AdapterError):
    """A target name or pattern that matches no module of the model."""


class RunError(EtudeError):
    """A run that cannot start, go on or be read: locked folder, full disk, diverged loss."""


class InsufficientMemoryError(RunError):
    """A run that would need more memory than there is."""


class DivergedError(RunError):
    """A loss or gradient that is not finite; the last good state is kept."""


class LockHeldError(EtudeError):
    """A lock that another process, or another part of this one, holds.

    Args:
        file: carries the lock.
        pid: of the holder; None where it is not known.
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
    """A practice problem that is unknown, incomplete or contradicts itself."""


class JudgeError(EtudeError):
    """A judge that cannot start here, or not with the isolation that was required."""


class ChatError(EtudeError):
    """A language model's endpoint that is misconfigured, unreachable or gives no usable answer."""


class PapersError(EtudeError):
    """A paper, category, file or source of the reading room that cannot be used as asked."""


class SourceError(PapersError):
    """A source of papers that is down, asks to wait, or refuses a request."""


class QueryError(PapersError):
    """A search for papers that cannot be read; the message says what is wrong, and where."""


class SourceDownError(SourceError):
    """A source of papers that gives no usable answer now: asking for more is no use."""


def nearest(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """Return the `count` names of `known` that look most like `name`, best first."""
    return difflib.get_close_matches(name, sorted(set(known)), n=count, cutoff=0.4)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ` (did you mean 'x'?)` for the nearest known name, or an empty string."""
    close = nearest(name, known, 1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def innermost_reason(error: BaseException) -> str:
    """Return the first line of the innermost cause, or its type where it says nothing."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
