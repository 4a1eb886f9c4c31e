"""TerminalView: terminal output of a run, from loading to the last step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from etude.core.progress import Progress
from etude.tuning.callbacks import Callback, EvaluationRecord, StepRecord
from etude.tuning.report.live import LiveView, TerminalProgress


class TerminalView(Callback):
    """Progress bars before and after training, the live view during training."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self.progress: Progress = TerminalProgress(quiet=quiet)
        self._live = LiveView(0, quiet=quiet)
        self._earlier: Sequence[Mapping[str, Any]] = ()

    def on_resume(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Remember what was recorded, so that the live view goes on where the run left off."""
        self._earlier = records

    def on_train_begin(self, total_steps: int, step: int) -> None:
        """Start the live view of `total_steps` steps, `step` of them already done."""
        self._live = LiveView(total_steps, done=step, earlier=self._earlier, quiet=self.quiet)
        self._live.__enter__()

    def on_step_end(self, record: StepRecord) -> None:
        """Show the record of an optimiser step; a time limit may have reduced the total."""
        self._live.total_steps = record.total_steps
        self._live.update(record.as_json())

    def on_evaluate(self, record: EvaluationRecord) -> None:
        """Show the record of an evaluation."""
        self._live.evaluation(record.as_json())

    def on_message(self, text: str) -> None:
        """Show a message."""
        self._live.message(text)

    def on_train_end(self) -> None:
        """Release the terminal."""
        self._live.close()
