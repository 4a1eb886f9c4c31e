"""Who is told how a run goes, without the run knowing what that looks like."""

from __future__ import annotations

from typing import Any, Protocol

from etude.core.progress import Progress, SilentProgress


class RunView(Protocol):
    """Who is told how a run goes."""

    @property
    def progress(self) -> Progress:
        """Told of every stage that may take over two seconds."""
        ...

    def begin(self, total_steps: int, done: int = 0) -> None:
        """Training starts, or goes on after `done` steps."""
        ...

    def update(self, record: dict[str, Any]) -> None:
        """Show the record of an optimiser step."""
        ...

    def evaluation(self, record: dict[str, Any]) -> None:
        """Show the record of an evaluation."""
        ...

    def message(self, text: str) -> None:
        """Show a line."""
        ...

    def end(self) -> None:
        """Training is over."""
        ...


class Unwatched:
    """A `RunView` that shows nothing."""

    progress: Progress = SilentProgress()

    def begin(self, total_steps: int, done: int = 0) -> None:
        """Show nothing."""

    def update(self, record: dict[str, Any]) -> None:
        """Show nothing."""

    def evaluation(self, record: dict[str, Any]) -> None:
        """Show nothing."""

    def message(self, text: str) -> None:
        """Show nothing."""

    def end(self) -> None:
        """Show nothing."""
