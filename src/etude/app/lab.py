"""What is to be seen before a run is started: data, loss mask, findings, memory, disk.

Questions are answered by a process of their own (`lab_process`), which may import torch and read a
large file; whoever asks, such as a server, stays small, and a data file that exhausts the memory
takes only that process with it. It stays for the questions that follow, and ends when there are
none for some minutes. Answers are plain data.
"""

from __future__ import annotations

import atexit
import json
import os
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

from etude.app.warm_process import ProcessEndedError, WarmProcess
from etude.core.errors import DataError, EtudeError, RecipeError

SECONDS = 300
"""A question that takes longer is given up."""

Question = Literal["decide", "preview", "inspect", "check", "memory"]


Answer = TypeVar("Answer")


class LabError(EtudeError):
    """A question that could not be answered: the process ended, or took too long."""


@dataclass(frozen=True)
class Decision:
    """A recipe made for data."""

    yaml: str
    notes: list[str]
    """What was read from the data, and why: task, columns, encoding."""


@dataclass(frozen=True)
class Column:
    """What a column holds, over all rows that were read."""

    name: str
    filled: int
    """Rows with a value that is not empty."""
    distinct: int
    """Different values; counted up to `lab_process.MOST_DISTINCT`."""
    numbers: int
    """Values that are numbers."""
    mean_length: float
    """Characters of a value."""
    longest: int
    common: list[tuple[str, int]]
    """The most frequent values and their counts, where few differ."""


@dataclass(frozen=True)
class PreviewRow:
    """A row of the data, its cells shortened."""

    origin: str
    """As in `train.csv:12`."""
    cells: list[str]


@dataclass(frozen=True)
class Preview:
    """Rows of a data file."""

    columns: list[Column]
    rows: list[PreviewRow]
    matching: int
    """Rows that contain what was searched for."""
    count: int
    """Rows read."""
    complete: bool
    """Whether these are all; otherwise reading ended at `lab_process.MOST_ROWS`."""
    unreadable: list[str]
    """What is wrong with rows that cannot be read, the first of them."""
    unreadable_count: int


@dataclass(frozen=True)
class MaskPiece:
    """The text of one token."""

    text: str
    state: Literal["trained", "context", "dropped"]
    special: bool
    """A special token; a trained one ends an answer."""


@dataclass(frozen=True)
class Mask:
    """One sample as the model sees it."""

    origin: str
    note: str
    """Why it is dropped or cut, if so."""
    tokens: int
    trained: int
    pieces: list[MaskPiece]


@dataclass(frozen=True)
class Masks:
    """Samples token by token, and totals over all."""

    samples: list[Mask]
    totals: list[tuple[str, str]]
    held_out: list[tuple[str, str]]
    histogram: list[tuple[int, int, int]]
    """Samples by length: from, to (tokens), count."""
    notes: list[str]
    fields: list[tuple[str, str]]
    """Columns and keys, and in how many rows they were read or not."""
    refused: str
    """Why a run would stop at these data; empty if it would not."""


@dataclass(frozen=True)
class LabFinding:
    """Something that `etude data check` found."""

    check: str
    severity: Literal["error", "warning", "note"]
    title: str
    advice: str
    count: int
    rows: list[str]
    """The first of them."""
    examples: list[str]


@dataclass(frozen=True)
class Findings:
    """What is wrong with the data."""

    rows: dict[str, int]
    """Rows that the data have, by side."""
    findings: list[LabFinding]
    """The gravest first."""


@dataclass(frozen=True)
class MemoryPlan:
    """What a run will take of this machine, in bytes."""

    total: int
    parts: dict[str, int]
    available: int
    fits: bool
    parameters: int
    """Of the base."""
    trained: int
    """Numbers trained."""
    notes: list[str]
    change: str
    """The least costly change with which it fits; empty where it does."""
    others: dict[str, int]
    """What the other methods would take."""
    disk_needed: int
    """Checkpoints and what is saved."""
    disk_free: int


def decide(
    data: str,
    *,
    task: str = "auto",
    model: str | None = None,
    method: str | None = None,
    overrides: Sequence[str] = (),
) -> Decision:
    """Return a recipe for a data file: its task, columns and encoding are read from the rows.

    Raises:
        EtudeError: the file cannot be read, or what it is for is ambiguous.
        LabError: the question could not be answered.
    """
    options = {
        "data": data,
        "task": task,
        "model": model,
        "method": method,
        "overrides": list(overrides),
    }
    return _as(Decision, ask("decide", options))


def preview(yaml: str, *, search: str = "", first: int = 0, limit: int = 20) -> Preview:
    """Return rows of a recipe's data, with statistics of their columns.

    Args:
        yaml: of the recipe.
        search: what the rows shown contain, in any column, ignoring case.
        first: matching rows to pass over.
        limit: rows to show.

    Raises:
        EtudeError: the data cannot be read.
    """
    options = {"yaml": yaml, "search": search, "first": first, "limit": limit}
    return _as(Preview, ask("preview", options))


def masks(
    yaml: str, *, count: int = 3, origins: Sequence[str] = (), model: str | None = None
) -> Masks:
    """Return samples token by token, as the model will see them.

    Args:
        yaml: of the recipe.
        count: the first training samples to return.
        origins: rows to return instead, as `train.csv:12`.
        model: whose tokenizer and chat template are used instead of the recipe's.

    Raises:
        EtudeError: the data or the tokenizer cannot be read.
    """
    options = {"yaml": yaml, "count": count, "origins": list(origins), "model": model}
    return _as(Masks, ask("inspect", options))


def findings(yaml: str) -> Findings:
    """Return what `etude data check` finds in a recipe's data.

    Raises:
        EtudeError: the data or the tokenizer cannot be read.
    """
    return _as(Findings, ask("check", {"yaml": yaml}))


def memory_plan(yaml: str, base: Path = Path("runs")) -> MemoryPlan:
    """Return what a recipe's run will take of this machine, by part, and of its disk.

    Args:
        yaml: of the recipe.
        base: folder that runs are kept in; its disk counts.

    Raises:
        EtudeError: the model is unknown.
    """
    return _as(MemoryPlan, ask("memory", {"yaml": yaml, "base": str(base)}))


def ask(question: Question, options: dict[str, Any], *, seconds: float = SECONDS) -> dict[str, Any]:
    """Answer one question, in another process.

    Raises:
        EtudeError: what the process said is wrong.
        LabError: it ended without an answer, or took too long.
    """
    process = _take()
    try:
        line = process.ask(json.dumps({"question": question, "options": options}), seconds)
        answer = json.loads(line)
    except ProcessEndedError as ended:
        if ended.late:
            reason = f"this took longer than {seconds:g} s and was given up"
            raise LabError(reason) from None
        raise LabError(_no_answer(ended)) from None
    except OSError as error:
        raise LabError(f"no process can be started: {error.strerror}") from None
    finally:
        _give_back(process)
    if "error" in answer:
        kinds: dict[str, type[EtudeError]] = {"DataError": DataError, "RecipeError": RecipeError}
        raise kinds.get(answer["kind"], LabError)(answer["error"])
    return cast("dict[str, Any]", answer["answer"])


def _as(kind: type[Answer], answer: dict[str, Any]) -> Answer:
    from pydantic import TypeAdapter

    return TypeAdapter(kind).validate_python(answer)


def _no_answer(ended: ProcessEndedError) -> str:
    if ended.code is not None and ended.code < 0:
        return "the process that looks at this was killed, by someone or for want of memory"
    return f"this cannot be looked at: {ended.said or 'no reason was given'}"


MOST_WARM = 2
"""Processes that stay for further questions; those asked meanwhile have one of their own."""

_warm: list[tuple[object, WarmProcess]] = []
_lock = threading.Lock()


def _surroundings() -> object:
    """Return what a process inherits when it starts: one with another is not asked."""
    return sys.executable, str(Path.cwd()), dict(os.environ)


def _take() -> WarmProcess:
    """Return a process that nobody asks now."""
    now = _surroundings()
    with _lock:
        others = [process for before, process in _warm if before != now]
        fitting = [process for before, process in _warm if before == now]
        _warm[:] = [(now, process) for process in fitting[:-1]]
    for process in others:
        process.close()
    if fitting:
        return fitting[-1]
    quiet = {"NO_COLOR": "1", "TOKENIZERS_PARALLELISM": "false"}
    return WarmProcess("etude.app.lab_process", environment=quiet)


def _give_back(process: WarmProcess) -> None:
    with _lock:
        if len(_warm) < MOST_WARM:
            _warm.append((_surroundings(), process))
            return
    process.close()


@atexit.register
def end_processes() -> None:
    """End the processes that wait for questions."""
    with _lock:
        waiting, _warm[:] = list(_warm), []
    for _, process in waiting:
        process.close()
