"""Progress: how long work tells whoever waits for it.

Whatever may take over two seconds (a download, reading a checkpoint, tokenising, generating)
takes a `Progress` and reports to it; what that looks like is the caller's affair.
"""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """One piece of work at a time: `start`, any number of `advance`, `finish`."""

    def start(self, label: str, total: int | None, unit: str = "") -> None:
        """Begin a piece of work, ending the one before.

        Args:
            label: what is done, as a person would say it: `Reading the weights`.
            total: how much there is to do in `unit`; None where nobody knows.
            unit: `B` for bytes, or a plural noun: `tensors`, `samples`.
        """
        ...

    def advance(self, n: int = 1) -> None:
        """Say that `n` more units are done."""
        ...

    def finish(self) -> None:
        """End the piece of work; without one, nothing happens."""
        ...


class SilentProgress:
    """A `Progress` that shows nothing."""

    def start(self, label: str, total: int | None, unit: str = "") -> None:
        """Show nothing."""

    def advance(self, n: int = 1) -> None:
        """Show nothing."""

    def finish(self) -> None:
        """Show nothing."""
