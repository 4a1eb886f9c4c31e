"""Ctrl-C of a command or a job whose work is many runs."""

from __future__ import annotations

import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stop_on_signal(say: Callable[[str], None], work: str) -> Generator[Callable[[], bool]]:
    """Turn the first SIGINT or SIGTERM into a request to stop; a second one ends at once.

    Args:
        say: shows a line.
        work: what is done one after the other: `trial`.

    Yields:
        Whether a stop was asked for.
    """
    asked = False

    def note(number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        del number
        if asked:
            raise KeyboardInterrupt
        asked = True
        say(
            f"stopping: the {work} at work is saved at its next safe point, and all others are "
            "kept. Ctrl-C again ends at once"
        )

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, note)
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
