"""Progress reporting for long operations.

Whatever may take over two seconds (a download, reading a checkpoint, tokenising, generating)
takes a `Progress` and reports to it; the caller decides how to display it.
"""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receiver of progress reports: `start`, any number of `advance`, `finish`."""

    def start(self, label: str, total: int | None, unit: str = "") -> None:
        """Begin an operation, ending the previous one.

        Args:
            label: the operation, for display: `Reading the weights`.
            total: amount of work in `unit`; None if unknown.
            unit: `B` for bytes, or a plural noun: `tensors`, `samples`.
        """
        ...

    def advance(self, n: int = 1) -> None:
        """Report `n` more completed units."""
        ...

    def finish(self) -> None:
        """End the current operation, if any."""
        ...


class SilentProgress:
    """A `Progress` that shows nothing."""

    def start(self, label: str, total: int | None, unit: str = "") -> None:
        """Show nothing."""

    def advance(self, n: int = 1) -> None:
        """Show nothing."""

    def finish(self) -> None:
        """Show nothing."""
