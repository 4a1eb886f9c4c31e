"""Graceful interruption: Ctrl-C and SIGTERM are answered at once and stop at a safe point.

Python runs its signal handlers between two bytecodes, so a matrix product of ten seconds delays
them by ten. The answer therefore comes from a thread that the system's own handler wakes by a byte
in a pipe (`signal.set_wakeup_fd`): kernels release the interpreter's lock while they compute.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from types import FrameType

_STOPPING = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Flag that a stop of the run was requested; false until then."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def __bool__(self) -> bool:
        """Return whether a stop was requested."""
        return self.signal is not None


class StopAnswer:
    """What a stop would do at this moment, told to the user as soon as one is requested.

    with answers(say) as answer:
        answer.will = lambda: "nothing is trained yet, so nothing is kept"
    """

    def __init__(self, will: Callable[[], str] | None = None) -> None:
        self.will = will or (lambda: "what is saved stays as it is")

    @contextmanager
    def during(self, will: Callable[[], str]) -> Generator[None]:
        """Answer with `will` inside the block, and as before afterwards."""
        before, self.will = self.will, will
        try:
            yield
        finally:
            self.will = before


@contextmanager
def answers(say: Callable[[str], None]) -> Generator[StopAnswer]:
    """Answer the first SIGINT or SIGTERM inside the block within milliseconds.

    SIGTERM raises KeyboardInterrupt, as SIGINT does, unless the caller or `stop_request` handles
    it. Outside the main thread, where Python cannot receive signals, nothing is answered.

    Args:
        say: shows a line to the user; called from another thread.
    """
    answer = StopAnswer()
    if threading.current_thread() is not threading.main_thread():
        yield answer
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    watcher = threading.Thread(target=_watch, args=(reading, answer, say), daemon=True)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    takes_over = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if takes_over:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    watcher.start()
    try:
        yield answer
    finally:
        signal.set_wakeup_fd(before)
        if takes_over:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.close(writing)  # the watcher reads the end of the pipe, and ends
        watcher.join()
        os.close(reading)


def _watch(reading: int, answer: StopAnswer, say: Callable[[str], None]) -> None:
    """Answer the first byte that is a stopping signal's number; read until the pipe is closed."""
    answered = False
    while received := os.read(reading, 64):
        if answered or not any(number in received for number in _STOPPING):
            continue
        answered = True
        # A view that fails must not take the run down with it.
        with suppress(Exception):
            say(f"stopping: {answer.will()}")


@contextmanager
def stop_request() -> Generator[StopRequest]:
    """Turn the first SIGINT or SIGTERM inside the block into a `StopRequest`.

    A second signal has its previous effect, so the user can still abort at once.
    Outside the main thread, where Python cannot receive signals, the request is never set.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.getsignal(number) for number in _STOPPING}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, _frame: FrameType | None) -> None:
        request.signal = signal.Signals(number)
        restore()

    for number in before:
        signal.signal(number, note)
    try:
        yield request
    finally:
        restore()
