"""TerminalView: all that a run shows in a terminal, from loading to the last step."""

from __future__ import annotations

from typing import Any

from etude.core.progress import Progress
from etude.tuning.report.live import LiveView, TerminalProgress


class TerminalView:
    """Bars for what comes before and after training, the live view during it."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self.progress: Progress = TerminalProgress(quiet=quiet)
        self._live = LiveView(0, quiet=quiet)

    def begin(self, total_steps: int, done: int = 0) -> None:
        """Start the live view of `total_steps` steps, `done` of them behind."""
        del done
        self._live = LiveView(total_steps, quiet=self.quiet)
        self._live.__enter__()

    def update(self, record: dict[str, Any]) -> None:
        """Show the record of an optimiser step; a time limit may have shortened the plan."""
        self._live.total_steps = record["total_steps"]
        self._live.update(record)

    def evaluation(self, record: dict[str, Any]) -> None:
        """Show the record of an evaluation."""
        self._live.evaluation(record)

    def message(self, text: str) -> None:
        """Show a line."""
        self._live.message(text)

    def end(self) -> None:
        """Give the terminal back."""
        self._live.close()
