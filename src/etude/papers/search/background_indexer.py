"""The index kept up with a library while papers come in, by a process of its own.

Who fetches waits for the network, then reads XML on one core; the index takes another, and a first
fetch of months can be searched while it goes on. A thread would not do: each of the two would wait
for the interpreter's lock at every call of the database (12.7 s for what takes 11.0 one after the
other, and 6.2 to 7.5 in two processes).

    python -m etude.papers.search.background_indexer FOLDER

reads the database's address, then a line for each time that a refresh is worth it, then the end.
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
"""Papers worth a commit of their own; a day's, which are fewer, wait for the end."""


class BackgroundIndexer:
    """A context manager: `came` is told how many papers were stored, the index in `folder` follows.

    A last refresh is left to the caller, who shows it and hears of what is wrong: where the process
    fails, all is left to that. It ends with this process, however that ends.
    """

    def __init__(self, folder: Path, library: Library, enough: int = ENOUGH) -> None:
        self._folder, self._library, self._enough = folder, library, enough
        self._told = 0
        self._process: subprocess.Popen[str] | None = None

    def came(self, stored: int) -> None:
        """Hear that `stored` papers were stored since the beginning."""
        if stored - self._told < self._enough:
            return
        self._told = stored
        if self._process is None:
            self._process = subprocess.Popen(
                # -P: a random.py in the folder one works in is not to be taken for Python's.
                [sys.executable, "-P", "-m", __name__, str(self._folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            # An address may hold a password, which the list of processes would show.
            self._say(self._library.engine.url.render_as_string(hide_password=False))
        self._say("more")

    def _say(self, line: str) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it failed; the last refresh will tell why
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
    # At a terminal Ctrl-C reaches this process, too: it ends when the other has ended.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _follow(Path(sys.argv[1]))
