"""What runs and what waits in a base folder, as its runs' folders say."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from etude.core.atomic_files import disk_reason, replace_text, to_json
from etude.core.errors import RunError

if TYPE_CHECKING:
    from etude.tuning.runs.folder import RunFolder

SETTINGS = ".queue.json"


@dataclass(frozen=True)
class Queue:
    """What runs and what waits in a base folder."""

    at_once: int
    """Jobs that run at the same time."""
    active: list[RunFolder]
    """Runs that a process is at work on, those of the command line included."""
    waiting: list[RunFolder]
    """Queued runs, the next first."""


def read_queue(base: Path = Path("runs")) -> Queue:
    """Return what runs and what waits."""
    from etude.tuning.runs.folder import list_runs
    from etude.tuning.runs.states import ALIVE

    states = [(folder, folder.state) for folder in list_runs(base)]
    waiting = [folder for folder, state in states if state == "queued"]
    return Queue(
        _at_once(base),
        [folder for folder, state in states if state in ALIVE],
        sorted(waiting, key=lambda folder: (_number(folder), folder.name)),
    )


def set_at_once(count: int, base: Path = Path("runs")) -> None:
    """Let `count` jobs run at the same time.

    Raises:
        RunError: the setting cannot be written.
    """
    try:
        base.mkdir(parents=True, exist_ok=True)
        replace_text(base / SETTINGS, to_json({"at_once": max(1, count)}) + "\n")
    except OSError as error:
        raise RunError(f"cannot write {base / SETTINGS}: {disk_reason(error)}") from None


def read_order(folder: RunFolder) -> dict[str, Any]:
    """Return job.json: when a run was queued, and how it is to go on.

    Empty where it is missing or damaged.
    """
    try:
        content: Any = folder.read_json("job.json")
    except RunError:
        return {}
    return cast("dict[str, Any]", content) if isinstance(content, dict) else {}


def _number(folder: RunFolder) -> int:
    number: Any = read_order(folder).get("number")
    return number if isinstance(number, int) else 0


def _at_once(base: Path) -> int:
    try:
        content: Any = json.loads((base / SETTINGS).read_text("utf-8"))
        return max(1, int(content["at_once"]))
    except (OSError, ValueError, KeyError, TypeError):
        return 1
