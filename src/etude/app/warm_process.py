"""A process beside this one that answers requests, so that this one need not load what they take.

It starts when it is first asked, answers one request after the other, and ends when it was not
asked for five minutes, or when whoever asks has ended. A request and its answer are a line each.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import IO

IDLE_SECONDS = 300.0


class ProcessEndedError(OSError):
    """It ended without an answer."""

    def __init__(self, code: int | None, said: str, *, late: bool) -> None:
        super().__init__("its process ended")
        self.code = code
        """Its exit status; None: it was closed."""
        self.said = said
        """The last line that it wrote to standard error."""
        self.late = late
        """Whether it was ended because it took too long."""


class WarmProcess:
    """Starts the process when there is a request, and another one when it has ended.

    Args:
        module: that the process runs; it calls `answer_requests`.
        opening: returns the lines that each new process reads first.
        environment: variables beside this process's own.
        retry: ask another process once where one was killed over a request. One that ended for
            want of requests is always replaced.
    """

    def __init__(
        self,
        module: str,
        opening: Callable[[], str] = lambda: "",
        environment: Mapping[str, str] | None = None,
        *,
        retry: bool = False,
    ) -> None:
        self._module, self._opening, self._retry = module, opening, retry
        self._environment = environment or {}
        self._life = threading.Lock()
        """Held while the process is begun or given up, so that none is begun after `close`."""
        self._closed = False
        self._errors: IO[bytes] | None = None
        self.process: subprocess.Popen[str] | None = None

    def ask(self, request: str, seconds: float | None = None) -> str:
        """Return the answer to a request; one at a time.

        Args:
            request: a line, without its end.
            seconds: after which the process is ended; None: never.

        Raises:
            ProcessEndedError: there is no answer.
            OSError: no process can be started.
        """
        tried = False
        while True:
            with self._life:
                if self._closed:
                    raise ProcessEndedError(None, "", late=False)
                process = self.process
                if process is None or process.poll() is not None:
                    process = self._begin()
            late = threading.Event()
            line = self._exchange(process, request, seconds, late)
            if line:
                return line
            code = process.wait()
            said = self._said()
            self._end()
            again = self._retry or code == 0
            if tried or late.is_set() or not again:
                raise ProcessEndedError(code, said, late=late.is_set())
            tried = True

    def close(self) -> None:
        """End the process for good."""
        with self._life:
            self._closed = True
        self._end()

    @staticmethod
    def _exchange(
        process: subprocess.Popen[str], request: str, seconds: float | None, late: threading.Event
    ) -> str:
        assert process.stdin is not None
        assert process.stdout is not None

        def give_up() -> None:
            late.set()
            process.kill()

        timer = None if seconds is None else threading.Timer(seconds, give_up)
        if timer is not None:
            timer.daemon = True
            timer.start()
        try:
            with suppress(BrokenPipeError):
                process.stdin.write(request + "\n")
                process.stdin.flush()
            with suppress(ValueError):  # closed meanwhile
                return process.stdout.readline()
            return ""
        finally:
            if timer is not None:
                timer.cancel()

    def _begin(self) -> subprocess.Popen[str]:
        self._drop()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        process = subprocess.Popen(
            # -P: a random.py in the working folder must not shadow Python's.
            [sys.executable, "-P", "-m", self._module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, **self._environment},
            start_new_session=True,  # Ctrl-C at the terminal is the server's to handle
        )
        assert process.stdin is not None
        with suppress(BrokenPipeError):
            process.stdin.write(self._opening())
        self.process = process
        return process

    def _said(self) -> str:
        if self._errors is None:
            return ""
        size = self._errors.seek(0, 2)
        self._errors.seek(max(0, size - 4000))
        lines = self._errors.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else ""

    def _end(self) -> None:
        with self._life:
            self._drop()

    def _drop(self) -> None:
        """End the process, and close what leads to it."""
        process, self.process = self.process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()
        if self._errors is not None:
            self._errors.close()
            self._errors = None


# -- in the process ------------------------------------------------------------------------------


def answer_requests(answer: Callable[[str], str]) -> None:
    """Answer requests until there are none for long, or nobody is left to ask.

    Args:
        answer: returns the line that answers a line.
    """
    # What libraries print is no answer: it goes where errors go.
    sys.stdout.flush()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    while line := _line_in_time():
        answers.write(answer(line) + "\n")
        answers.flush()


def _line_in_time() -> str:
    """Return the next request; end the process if none comes for long."""
    end = threading.Timer(IDLE_SECONDS, os._exit, (0,))
    end.daemon = True
    end.start()
    try:
        return sys.stdin.readline()
    finally:
        end.cancel()
