"""What is new in runs, read from their files: whether the list has changed, and further metrics.

A position in the metrics is `FILE.OFFSET`: the file's inode, because a resumed run replaces the
file with a shorter one, and the byte at which the last whole line ends.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from etude.core.errors import RunError

PORTION = 500
"""Records in one portion."""


@dataclass(frozen=True)
class Portion:
    """Consecutive records of a run."""

    position: str
    """Behind the last of them."""
    records: list[dict[str, Any]]
    anew: bool
    """Whether these are the file's first: what was read before is void."""


class MetricsTail:
    """The end of a run's metrics.jsonl, wherever reading was left."""

    def __init__(self, file: Path) -> None:
        self._file = file

    @classmethod
    def of_run(cls, base: Path, name: str) -> MetricsTail:
        """Return the tail of a run's metrics.

        Args:
            base: folder that runs are kept in.
            name: of the run's folder; anything else, a path for one, is no run.

        Raises:
            RunError: there is no such run.
        """
        from etude.tuning.runs.folder import RunFolder

        folder = run_named(base, name)
        return cls(RunFolder(folder).metrics)

    def position(self) -> str:
        """Return where the file ends now."""
        try:
            found = self._file.stat()
        except FileNotFoundError:
            return "0.0"
        return f"{found.st_ino}.{found.st_size}"

    def after(self, position: str) -> Iterator[Portion]:
        """Yield the whole lines after a position; from the beginning if the file is another one."""
        try:
            stream = self._file.open("rb")
        except FileNotFoundError:
            return
        with stream:
            found = os.fstat(stream.fileno())
            number, _, offset = position.partition(".")
            same = number == str(found.st_ino) and offset.isdigit()
            start = int(offset) if same else 0
            anew = not same or start > found.st_size
            start = 0 if anew else start
            stream.seek(start)
            records: list[dict[str, Any]] = []
            for line in stream:
                if not line.endswith(b"\n"):
                    break
                start += len(line)
                records.append(_record(line, self._file))
                if len(records) == PORTION:
                    yield Portion(f"{found.st_ino}.{start}", records, anew)
                    records, anew = [], False
            if records or anew:
                yield Portion(f"{found.st_ino}.{start}", records, anew)


def run_named(base: Path, name: str) -> Path:
    """Return the folder of the run that has exactly this name.

    Raises:
        RunError: there is none.
    """
    folder = base / name
    named = "/" not in name and name not in ("", ".", "..") and not folder.is_symlink()
    if not named or not (folder / "state.json").is_file():
        raise RunError(f"there is no run {name!r}; it may have been deleted")
    return folder


def runs_signature(base: Path) -> str:
    """Return a text that changes when a run appears, vanishes, or changes its state."""
    from etude.tuning.runs.folder import list_runs

    states = [
        (run.name, (run.path / "state.json").stat().st_mtime_ns, run.is_locked())
        for run in list_runs(base)
    ]
    return hashlib.sha256(repr(states).encode()).hexdigest()[:16]


def _record(line: bytes, file: Path) -> dict[str, Any]:
    try:
        record: Any = json.loads(line)
    except ValueError:
        record = None
    if not isinstance(record, dict):
        raise RunError(f"{file}: a line that is not a JSON object")
    return cast("dict[str, Any]", record)
