"""Graceful interruption: Ctrl-C and SIGTERM stop the loop at a safe point."""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """Flag that a stop of the run was requested; false until then."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def __bool__(self) -> bool:
        """Return whether a stop was requested."""
        return self.signal is not None


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
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

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
