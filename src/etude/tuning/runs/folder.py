"""RunFolder: crash-safe storage of a run's files.

    runs/latest -> docstrings-20260701-142501
    runs/docstrings-20260701-142501/
        recipe.yaml       the resolved recipe
        environment.json  versions and machine
        base.json         fingerprint of the base's weights
        state.json        the run's state (see `states`), and which process wrote it
        job.json          when it was queued and how it is to go on; of runs that were queued
        heartbeat         its modification time is the last sign of life
        stop              there while the process is asked to stop
        log.txt           output of a process without a terminal
        metrics.jsonl     one JSON object a line, appended as training goes
        checkpoints/      what a resumed run starts from
        adapter/          the outcome, in PEFT's format
        samples.jsonl     evaluation samples before and after
        summary.json      figures of the whole run
        test.json         when the test set was opened, and what was measured on it
        report.html       all of it, to look at
        chats/, exports/  conversations, and what was made of the adapter, on the run's page

The folder of a search has search.json, and a run's folder a trial in trials/ (`search.driver`);
that of a cross-validation has folds.json, and a run's folder a fold (`cross_validation.driver`).

One process writes, any number read. A small file is replaced whole (written aside, flushed to
disk, renamed), so that a reader, or a run killed at any byte, finds the old or the new one. A
line of metrics.jsonl is one append; a last line that a kill or a full disk cut short is dropped
when read, and when written to again.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

from etude.core.atomic_files import (
    disk_reason,
    drop_torn_line,
    is_disk_full,
    remove_folder,
    replace_bytes,
    replace_text,
    to_json,
)
from etude.core.errors import LockHeldError, RunError, nearest
from etude.core.lock import FileLock
from etude.tuning.runs.latest import LATEST, follow_latest, point_latest
from etude.tuning.runs.states import AT_WORK, RunState, derived_state, state_record


class RunFolder:
    """One run's folder. Reading needs no lock; writing does: use it as a context manager.

    with RunFolder.create("docstrings") as folder:     # or RunFolder.open(path)
        folder.set_state("running")
        folder.append_metrics({"step": 1, "loss": 2.9})
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._lock = FileLock(self.path / ".lock")
        self._stop = self.path / "stop"
        self._metrics: int | None = None

    def __repr__(self) -> str:
        return f"RunFolder({str(self.path)!r})"

    @classmethod
    def create(
        cls,
        name: str,
        base: str | os.PathLike[str] = "runs",
        *,
        queued: Callable[[Self], None] | None = None,
    ) -> Self:
        """Make `base/name-YYYYmmdd-HHMMSS` with its empty parts and let `base/latest` name it.

        Args:
            name: what the folder's name begins with.
            base: folder that runs are kept in.
            queued: writes the files of a run that is to wait in the queue: it is one from the
                moment that they are all there, and `latest` goes on naming another.

        Raises:
            RunError: the name is no file name, or the folder cannot be made.
        """
        if not re.fullmatch(r"[\w][\w.+-]*", name):
            raise RunError(
                f"a run cannot be named {name!r}: use letters, digits, dots, dashes, underscores"
            )
        parent = Path(base)
        stem = f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
        try:
            parent.mkdir(parents=True, exist_ok=True)
            folder = cls(_make_fresh(parent, stem))
        except OSError as error:
            raise RunError(
                f"cannot make a run's folder in {parent}: {disk_reason(error)}"
            ) from None
        try:
            folder.checkpoints.mkdir()
            if queued is not None:
                queued(folder)
            first = state_record("stopped" if queued is None else "queued", "")
            replace_text(folder.path / "state.json", to_json(first, indent=2) + "\n")
        except OSError as error:
            shutil.rmtree(folder.path, ignore_errors=True)
            raise RunError(
                f"cannot make a run's folder in {parent}: {disk_reason(error)}; nothing was trained"
            ) from None
        except BaseException:
            shutil.rmtree(folder.path, ignore_errors=True)
            raise
        if queued is None:
            folder.name_latest()
        return folder

    @classmethod
    def make(cls, path: Path) -> Self:
        """Make a run's folder with its empty parts at `path`; `latest` is not changed.

        Raises:
            RunError: there is something, or the folder cannot be made.
        """
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise RunError(f"{path} already exists; choose another folder")
        folder = cls(path)
        try:
            folder.checkpoints.mkdir(parents=True)
            first = to_json(state_record("stopped", ""), indent=2) + "\n"
            replace_text(folder.path / "state.json", first)
        except OSError as error:
            raise RunError(f"cannot make {path}: {disk_reason(error)}") from None
        return folder

    def name_latest(self) -> None:
        """Let `latest` name this run."""
        point_latest(self.path.parent, self.path.name)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Open an existing run.

        Raises:
            RunError: there is no run at `path`.
        """
        folder = cls(path)
        if not _is_run(folder.path):
            raise RunError(f"{folder.path} is not a run's folder: it has no state.json")
        return folder

    @property
    def name(self) -> str:
        """The folder's own name, unique in its base folder."""
        return self.path.resolve().name

    @property
    def search(self) -> Path:
        """The space of a search, whose folder has the form of a run's; a run has none."""
        return self.path / "search.json"

    @property
    def is_search(self) -> bool:
        """Whether this is a search, whose runs are in `trials/`, and no run itself."""
        return self.search.is_file()

    @property
    def folds(self) -> Path:
        """How often and into how many folds the data of a cross-validation are divided."""
        return self.path / "folds.json"

    @property
    def is_cross_validation(self) -> bool:
        """Whether this is a cross-validation, whose runs are in `trials/`, and no run itself."""
        return self.folds.is_file()

    @property
    def has_trials(self) -> bool:
        """Whether this is no run, but holds some: a search, or a cross-validation."""
        return self.is_search or self.is_cross_validation

    @property
    def recipe(self) -> Path:
        """The resolved recipe."""
        return self.path / "recipe.yaml"

    @property
    def environment(self) -> Path:
        """Versions and machine; see `environment`."""
        return self.path / "environment.json"

    @property
    def metrics(self) -> Path:
        """One JSON object a line."""
        return self.path / "metrics.jsonl"

    @property
    def adapter(self) -> Path:
        """Folder of the trained adapter."""
        return self.path / "adapter"

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def samples(self) -> Path:
        """Evaluation samples before and after, one JSON object a line."""
        return self.path / "samples.jsonl"

    @property
    def job(self) -> Path:
        """When the run was queued, and how it is to go on."""
        return self.path / "job.json"

    @property
    def heartbeat(self) -> Path:
        """Its modification time is the last sign of life of the run's process."""
        return self.path / "heartbeat"

    @property
    def log(self) -> Path:
        """What the run's processes printed that had no terminal."""
        return self.path / "log.txt"

    @property
    def data(self) -> Path:
        """What the data looked like: length histogram, totals, a coloured sample."""
        return self.path / "data.json"

    @property
    def summary(self) -> Path:
        """Figures of the whole run."""
        return self.path / "summary.json"

    @property
    def details(self) -> Path:
        """Results of the task that the report draws: a confusion matrix, the worst errors."""
        return self.path / "details.json"

    @property
    def test(self) -> Path:
        """When the test set was opened, and what was measured on it; see `final_test`."""
        return self.path / "test.json"

    @property
    def report(self) -> Path:
        """The report page."""
        if self.is_search:
            return self.path / "search.html"
        return self.path / ("folds.html" if self.is_cross_validation else "report.html")

    # The lock

    def __enter__(self) -> Self:
        self.lock()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def lock(self) -> None:
        """Acquire the folder's write lock, until `release` or the end of the process.

        Raises:
            RunError: another process, or another part of this one, is writing it.
        """
        try:
            self._lock.acquire()
        except LockHeldError as error:
            raise RunError(
                f"{self.path} is being written by process {error.pid or 'unknown'}; "
                "wait for it to end or stop it"
            ) from None
        except OSError as error:
            raise RunError(f"cannot lock {self.path}: {error.strerror}") from None

    def release(self) -> None:
        """Release the write lock, if held."""
        self._close_metrics()
        self._lock.release()

    def is_locked(self) -> bool:
        """Whether some process, this one included, is writing the folder."""
        return self._lock.is_held()

    # State

    def set_state(self, state: RunState, detail: str = "") -> None:
        """Record the run's state; `detail` is a line for the user."""
        began = self.state_record().get("began")
        record = to_json(state_record(state, detail, began), indent=2) + "\n"
        file = self.path / "state.json"
        try:
            replace_text(file, record)
        except OSError as error:
            if not is_disk_full(error):
                raise self._write_error(file.name, error) from None
            self._overwrite(file, record)

    def state_record(self) -> dict[str, Any]:
        """Return state.json: state, detail, pid, began and updated (ISO 8601, UTC).

        Empty where it cannot be read: one damaged run must not hide the others from a list.
        """
        try:
            record: Any = self.read_json("state.json")
        except RunError:
            return {}
        return cast("dict[str, Any]", record) if isinstance(record, dict) else {}

    @property
    def state(self) -> RunState:
        """State of the run; see `states`."""
        record = self.state_record()
        locked = record.get("state") in AT_WORK and self.is_locked()
        return derived_state(record, locked=locked, asked_to_stop=self._stop.exists())

    def ask_to_stop(self) -> None:
        """Note that the process at work has been asked to stop; `clear_stop` takes it back."""
        with suppress(OSError):
            self._stop.touch()

    def clear_stop(self) -> None:
        """Forget that an earlier process was asked to stop."""
        with suppress(OSError):
            self._stop.unlink()

    # Metrics

    def append_metrics(self, record: dict[str, Any]) -> None:
        """Append one record; it reaches the system before this returns.

        A number that is not finite is written as null, since JSON has none.

        Raises:
            RunError: the disk is full, or the folder cannot be written.
        """
        if self._metrics is None:
            self._metrics = self._open_metrics()
        line = (to_json(record) + "\n").encode(errors="replace")
        try:
            whole = os.write(self._metrics, line) == len(line)
            error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as raised:
            whole, error = False, raised
        if not whole:
            # Opening it again repairs what this append may have left half written.
            self._close_metrics()
            raise self._write_error("metrics.jsonl", error)

    def read_metrics(self) -> list[dict[str, Any]]:
        """Return all records written whole; a last line cut short is left out.

        Raises:
            RunError: a line that is not JSON, by its number.
        """
        return self._read_lines(self.metrics)

    def has_steps(self) -> bool:
        """Whether a step was recorded, or a checkpoint written: there is something to resume."""
        try:
            return bool(self.read_metrics()) or any(self.checkpoints.rglob("step-*.pt"))
        except RunError:
            return True

    def remove_checkpoints(self) -> None:
        """Remove the checkpoints of a run that is not gone on with."""
        with suppress(OSError):
            shutil.rmtree(self.checkpoints)
            self.checkpoints.mkdir()

    def truncate_metrics(self, step: int) -> None:
        """Drop all records after `step`: a resumed run writes them again."""
        kept = [record for record in self.read_metrics() if record.get("step", 0) <= step]
        self._close_metrics()
        self.write_lines("metrics.jsonl", kept)

    # Files

    def read_samples(self) -> list[dict[str, Any]]:
        """Return the evaluation samples; empty where there are none.

        Raises:
            RunError: a line that is not JSON, by its number.
        """
        return self._read_lines(self.samples)

    def read_json(self, name: str) -> Any:
        """Return the content of a JSON file of this folder; None where there is none.

        Raises:
            RunError: the file is not JSON.
        """
        try:
            return json.loads((self.path / name).read_text("utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise RunError(f"cannot read {self.path / name}: {error}") from None

    def write_json(self, name: str, content: Any) -> None:
        """Replace a JSON file whole. Raises: RunError, and the file stays as it was."""
        self.write_text(name, to_json(content, indent=2) + "\n")

    def write_lines(self, name: str, records: Iterable[dict[str, Any]]) -> None:
        """Replace a JSON-lines file whole. Raises: RunError, and the file stays as it was."""
        self.write_text(name, "".join(to_json(record) + "\n" for record in records))

    def write_text(self, name: str, text: str) -> None:
        """Replace a text file whole. Raises: RunError, and the file stays as it was."""
        # Half a surrogate pair, which JSON data may hold, has no UTF-8: it becomes a `?`.
        content = text.encode(errors="replace")
        try:
            replace_bytes(self.path / name, content)
        except OSError as error:
            raise self._write_error(name, error) from None

    def _overwrite(self, file: Path, text: str) -> None:
        """Write over a small file: it has its block, even on a disk that is full."""
        try:
            with file.open("r+b") as content:
                content.write(text.encode(errors="replace"))
                content.truncate()
        except OSError as error:
            raise self._write_error(file.name, error) from None

    def _read_lines(self, file: Path) -> list[dict[str, Any]]:
        try:
            text = file.read_bytes()
        except FileNotFoundError:
            return []
        lines = text.split(b"\n")[:-1]
        records: list[dict[str, Any]] = []
        for number, line in enumerate(lines, start=1):
            try:
                record: Any = json.loads(line)
            except ValueError:
                record = None
            if not isinstance(record, dict):
                raise RunError(f"{file}, line {number}: not a JSON object")
            records.append(cast("dict[str, Any]", record))
        return records

    def _open_metrics(self) -> int:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        try:
            descriptor = os.open(self.metrics, flags, 0o644)
            drop_torn_line(descriptor)
        except OSError as error:
            raise self._write_error("metrics.jsonl", error) from None
        return descriptor

    def _close_metrics(self) -> None:
        if self._metrics is not None:
            os.close(self._metrics)
            self._metrics = None

    def _write_error(self, name: str, error: OSError) -> RunError:
        reason = disk_reason(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            reason += "; free some space and resume"
        return RunError(f"cannot write {self.path / name}: {reason}")


def list_runs(base: str | os.PathLike[str] = "runs") -> list[RunFolder]:
    """Return the runs in a base folder, oldest first; empty where there is no such folder."""
    parent = Path(base)
    if not parent.is_dir():
        return []
    runs = [
        RunFolder(path)
        for path in parent.iterdir()
        if _is_run(path) and not path.is_symlink() and not path.name.startswith(".")
    ]
    return sorted(runs, key=lambda run: (str(run.state_record().get("began")), run.path.name))


def find_run(name_or_path: str, base: str | os.PathLike[str] = "runs") -> RunFolder:
    """Return the run meant by `latest`, a name in `base`, the unique start of one, or a path.

    Raises:
        RunError: none fits (near names are given), or several do.
    """
    for path in (Path(name_or_path), Path(base) / name_or_path):
        target = follow_latest(path)
        if _is_run(target):
            return RunFolder(target)
    names = [run.path.name for run in list_runs(base)]
    if not names:
        raise RunError(f"no run {name_or_path!r}: there are no runs in {Path(base)} yet")
    starting = [name for name in names if name.startswith(name_or_path)]
    if len(starting) == 1:
        return RunFolder(Path(base) / starting[0])
    if starting:
        raise RunError(f"{name_or_path!r} matches several runs: {', '.join(starting)}")
    near = nearest(name_or_path, names) or names[-3:]
    raise RunError(f"no run {name_or_path!r} in {Path(base)}; there is {', '.join(near)}")


def remove_run(folder: RunFolder) -> None:
    """Delete a run that nobody else is writing, and let `latest` name the newest that is left.

    Raises:
        RunError: it is being written, or cannot be deleted.
    """
    folder.lock()
    base = folder.path.parent
    try:
        remove_folder(folder.path)
    except OSError as error:
        raise RunError(f"cannot remove {folder.path}: {error.strerror}") from None
    finally:
        folder.release()
    latest = base / LATEST
    if _is_run(follow_latest(latest)):
        return
    if left := list_runs(base):
        point_latest(base, left[-1].path.name)
    else:
        latest.unlink(missing_ok=True)


def _is_run(path: Path) -> bool:
    return (path / "state.json").is_file()


def _make_fresh(parent: Path, stem: str) -> Path:
    """Make the folder `stem`, or `stem-2` and so on where runs start in the same second."""
    for number in range(1, 1000):
        path = parent / (stem if number == 1 else f"{stem}-{number}")
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return path
    raise FileExistsError(errno.EEXIST, "a thousand runs of this name in one second")
