"""What a trial's process tells the search of a run: its stages, steps and evaluations."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from etude.tuning.callbacks import Callback, EvaluationRecord, StepRecord

Send = Callable[[str, Mapping[str, Any]], None]

EVERY = 0.2
"""Seconds between two steps that are told of."""


class RelayCallback(Callback):
    """Sends steps and evaluations."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._sent = 0.0

    def on_step_end(self, record: StepRecord) -> None:
        """Send a step, unless one was sent just now."""
        now = time.monotonic()
        if now - self._sent >= EVERY:
            self._sent = now
            self._send(
                "step",
                {"step": record.step, "total_steps": record.total_steps, "loss": record.loss},
            )

    def on_evaluate(self, record: EvaluationRecord) -> None:
        """Send an evaluation."""
        self._send("evaluation", record.as_json())


class RelayProgress:
    """A `Progress` that sends the label of each stage."""

    def __init__(self, send: Send) -> None:
        self._send = send

    def start(self, label: str, total: int | None, unit: str = "") -> None:
        """Send the label."""
        del total, unit
        self._send("stage", {"label": label})

    def advance(self, n: int = 1) -> None:
        """Send nothing."""

    def finish(self) -> None:
        """Send nothing."""
