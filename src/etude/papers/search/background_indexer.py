"""Background indexer: a process that updates the index while papers are stored.

Fetching waits for the network and parses XML on one core; indexing uses another, so that a first
sync of months is searchable while it runs. A thread would not help, since both would wait for the
interpreter lock at every database call (12.7 s for what takes 11.0 sequentially, and 6.2 to 7.5 in
two processes).

    python -m etude.papers.search.background_indexer FOLDER

reads the database's URL, then a line per requested refresh, until the end of the input.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from etude.papers.library import Library

ENOUGH = 2000
"""Number of stored papers that triggers a refresh; a day has fewer and waits for the end."""


class BackgroundIndexer:
    """Context manager that updates the index in `folder` while papers are stored.

    The last refresh is left to the caller, who shows its progress and receives its errors; it also
    makes up for a failed process. The process ends with this one.
    """

    def __init__(self, folder: Path, library: Library, enough: int = ENOUGH) -> None:
        self._folder, self._library, self._enough = folder, library, enough
        self._told = 0
        self._process: subprocess.Popen[str] | None = None

    def came(self, stored: int) -> None:
        """Report that `stored` papers were stored since the start."""
        if stored - self._told < self._enough:
            return
        self._told = stored
        if self._process is None:
            self._process = subprocess.Popen(
                # -P: a random.py in the working folder must not shadow Python's.
                [sys.executable, "-P", "-m", __name__, str(self._folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            # Not an argument: a URL may contain a password, which the process list would show.
            self._say(self._library.engine.url.render_as_string(hide_password=False))
        self._say("more")

    def _say(self, line: str) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it failed; the last refresh will report the reason
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is None:
            return
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()


def _follow(folder: Path) -> None:
    from etude.papers.library import Library
    from etude.papers.search.index import Index
    from etude.store.engine import open_store

    index: Index | None = None
    for line in sys.stdin:
        if index is None:
            index = Index(folder, Library(open_store(line.strip())))
        else:
            index.refresh()


if __name__ == "__main__":
    # At a terminal Ctrl-C reaches this process, too: it must end after the other.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _follow(Path(sys.argv[1]))
