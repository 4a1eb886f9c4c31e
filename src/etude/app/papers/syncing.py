"""Syncs of the web app: each in a process of its own, by arXiv's calendar or by a button.

The state of the last one is a file, `papers-sync.json` in Etude's data folder, which its process
replaces as it goes: so a page shows it whoever started it, and after a restart of the server. All
requests to arXiv go through the rate limit that all of an installation's processes share.

    python -m etude.app.papers.syncing [--no-fetch]

reads the database's URL, then fetches, indexes and summarises; with --no-fetch only the latter two.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from etude.core.errors import EtudeError, LockHeldError

if TYPE_CHECKING:
    from etude.papers.library import Library

NAP = 60.0
"""Seconds between looks at the clock, which may be set while the machine sleeps."""
_WRITE_SECONDS = 0.5
"""Shortest time between two writes of the state."""
AUTOMATIC = "sync:auto"
"""Key of the mark that says whether syncs happen by themselves."""


@dataclass(frozen=True)
class SyncState:
    """The last sync that the web app started, or the one that runs."""

    pid: int
    started: float
    """When its process began, in seconds since 1970: process ids are used again."""
    began: float
    fetching: bool = True
    """Whether it asks arXiv, and does not only index and summarise."""
    step: str = "starting"
    """What it does, or did last."""
    papers: int = 0
    """Papers received so far."""
    ended: float | None = None
    added: int = 0
    changed: int = 0
    problem: str = ""
    """Why it failed; empty if it did not."""

    @property
    def condition(self) -> Literal["running", "done", "failed", "interrupted"]:
        """Say how it is."""
        if self.ended is not None:
            return "failed" if self.problem else "done"
        return "running" if self._is_alive() else "interrupted"

    def _is_alive(self) -> bool:
        import psutil

        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started) < 2
            return same and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False


def state_file() -> Path:
    """Return where the state is kept."""
    from etude.core.paths import home

    return home() / "papers-sync.json"


def sync_state() -> SyncState | None:
    """Return the state of the last sync; None if there was none, or the file is damaged."""
    try:
        return SyncState(**json.loads(state_file().read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def sync_stamp() -> str:
    """Return a text that changes with the state, cheaply."""
    try:
        found = state_file().stat()
    except OSError:
        return "0"
    return f"{found.st_ino}-{found.st_mtime_ns}"


def is_automatic(library: Library) -> bool:
    """Return whether papers are fetched by themselves when arXiv announces."""
    return library.mark(AUTOMATIC) is not False


def set_automatic(library: Library, on: bool) -> None:
    """Let papers be fetched by themselves, or not."""
    library.set_mark(AUTOMATIC, on)


def next_sync(library: Library, now: datetime, opened: datetime) -> datetime:
    """Return when papers are fetched by themselves next; in the past if that is due.

    Args:
        library: the papers.
        now: the current time, aware.
        opened: when the app was opened. Before the first sync, that counts as the last one: a new
            installation waits for the button, or for the next announcement.
    """
    from etude.papers.schedule import next_run, own_minute

    run: dict[str, Any] = library.mark("sync:run") or {}
    done = datetime.fromtimestamp(run["ended"], UTC) if "ended" in run else None
    failed = bool(run.get("failed"))
    state = sync_state()
    # One that was refused, or interrupted, leaves no mark of its own.
    if state is not None and state.fetching and state.condition in ("failed", "interrupted"):
        tried = datetime.fromtimestamp(state.ended or state.began, UTC)
        if done is None or tried > done:
            done, failed = tried, True
    if done is None:
        done = opened
    return next_run(now, min(done, now), failed, own_minute())


class Syncer:
    """Starts syncs, one at a time.

    Args:
        library: the papers.
        clock: seconds since 1970.
        command: runs the module; replaced in tests.
    """

    def __init__(
        self,
        library: Library,
        *,
        clock: Callable[[], float] = time.time,
        command: tuple[str, ...] = (sys.executable, "-P", "-m", __name__),
    ) -> None:
        self._library, self._clock, self._command = library, clock, command
        self.opened = datetime.fromtimestamp(clock(), UTC)
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def running(self) -> bool:
        """Return whether a sync runs, whoever started it."""
        if self._process is not None and self._process.poll() is None:
            return True
        state = sync_state()
        return state is not None and state.condition == "running"

    def start(self, *, fetch: bool = True) -> bool:
        """Start a sync, unless one runs; return whether it was started.

        Args:
            fetch: ask arXiv; otherwise only index and summarise what came from elsewhere.
        """
        with self._lock:
            if self.running():
                return False
            more = () if fetch else ("--no-fetch",)
            process = subprocess.Popen(
                [*self._command, *more],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                text=True,
                start_new_session=True,  # Ctrl-C at the terminal is the server's to handle
            )
            assert process.stdin is not None
            # Not an argument: a URL may contain a password, which the process list would show.
            address = self._library.engine.url.render_as_string(hide_password=False)
            with suppress(BrokenPipeError):
                process.stdin.write(address + "\n")
                process.stdin.close()
            self._process = process
            return True

    def due(self) -> datetime:
        """Return when the next one is due."""
        return next_sync(self._library, datetime.fromtimestamp(self._clock(), UTC), self.opened)

    def look(self) -> bool:
        """Start what is due: a sync, or indexing what another program brought."""
        if self.running():
            return False
        now = datetime.fromtimestamp(self._clock(), UTC)
        if is_automatic(self._library) and self.due() <= now:
            return self.start()
        return self._behind() and self.start(fetch=False)

    def _behind(self) -> bool:
        """Return whether the index lacks papers, unless trying to mend that failed just now."""
        from etude.app.papers.opening import index_folder
        from etude.papers.search import Index

        state = sync_state()
        if state is not None and state.problem and self._clock() - (state.ended or 0) < 3600:
            return False
        try:
            return Index(index_folder()).revision() < self._library.revision()
        except EtudeError:
            return True  # damaged: the next refresh rebuilds it

    def keep(self) -> None:
        """Look at the clock in a thread of its own, until `close`."""

        def work() -> None:
            import logging

            while not self._stop.is_set():
                try:
                    self.look()
                except Exception as error:  # a database that is away now is asked again
                    logging.getLogger(__name__).warning("papers were not fetched: %s", error)
                self._stop.wait(NAP)

        self._thread = threading.Thread(target=work, name="papers-sync", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Wait for the sync that this object started."""
        if self._process is not None:
            self._process.wait()

    def close(self) -> None:
        """End the thread, and a sync that runs: it can be interrupted at any point."""
        self._stop.set()
        process = self._process
        if process is not None and process.poll() is None:
            process.terminate()
            process.wait()


# -- in the process ------------------------------------------------------------------------------


class _Reporter:
    """Writes the state of this process, not more often than pages need it."""

    def __init__(self, *, fetching: bool) -> None:
        import psutil

        pid = os.getpid()
        self.state = SyncState(pid, psutil.Process(pid).create_time(), time.time(), fetching)
        self._written = 0.0
        self.write()

    def show(self, text: str) -> None:
        self.state = replace(self.state, step=text)
        if time.monotonic() - self._written >= _WRITE_SECONDS:
            self.write()

    def came(self, papers: int) -> None:
        self.state = replace(self.state, papers=papers)

    def end(self, **facts: Any) -> None:
        self.state = replace(self.state, ended=time.time(), **facts)
        self.write()

    def write(self) -> None:
        from etude.core.atomic_files import replace_text

        self._written = time.monotonic()
        replace_text(state_file(), json.dumps(asdict(self.state)))


def _run(*, fetch: bool) -> None:
    from etude.app.papers.collecting import collect_new, follow_up
    from etude.app.papers.opening import open_settings
    from etude.core.lock import FileLock
    from etude.core.paths import home
    from etude.papers.library import Library
    from etude.store.engine import open_store

    address = sys.stdin.readline().strip()
    home().mkdir(parents=True, exist_ok=True)
    lock = FileLock(home() / "papers-web-sync.lock")
    try:
        lock.acquire()
    except LockHeldError:
        return  # the other one's state is shown
    with lock:
        reporter = _Reporter(fetching=fetch)
        try:
            library = Library(open_store(address))
            facts: dict[str, Any] = {}
            if fetch:
                report = collect_new(
                    library, open_settings(), show=reporter.show, count=reporter.came
                )
                failed = [f"{line.source}: {line.text}" for line in report.sources if line.failed]
                facts = {
                    "added": report.added,
                    "changed": report.changed,
                    "problem": "; ".join(failed),
                }
            follow_up(library, show=reporter.show)
            reporter.end(**facts)
        except EtudeError as error:
            reporter.end(problem=str(error))
        except Exception as error:
            reporter.end(problem=f"{type(error).__name__}: {error}")
            raise


if __name__ == "__main__":
    _run(fetch="--no-fetch" not in sys.argv[1:])
