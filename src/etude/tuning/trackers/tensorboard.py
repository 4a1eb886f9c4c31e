"""TensorBoard: the figures of a run as event files in its folder.

    tensorboard --logdir runs

shows all runs that have some. A run that is resumed goes on from a checkpoint and repeats the steps
after it, so its event files are written anew from metrics.jsonl, which holds each step once.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from etude.tuning.callbacks import Callback, EvaluationRecord, StepRecord

FLUSH_SECONDS = 10

NAMES = {
    "loss": "train/loss",
    "lr": "train/lr",
    "grad_norm": "train/grad_norm",
    "tokens_per_s": "speed/tokens_per_s",
    "rss": "memory/rss",
    "peak_gpu_memory": "memory/peak_gpu",
}
"""Tags of the figures of a step; others are `train/NAME`, those of an evaluation `eval/NAME`."""

PLACES = {"step", "total_steps", "epoch", "tokens", "trained_tokens", "seconds"}
"""What says where a record stands, and is no figure."""


class TensorBoard(Callback):
    """Writes each step and evaluation.

    Args:
        folder: of the event files; what an earlier process left there is replaced.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._earlier: Sequence[Mapping[str, Any]] = ()
        self._writer: Any = None

    def on_resume(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Keep what earlier processes recorded up to the checkpoint."""
        self._earlier = records

    def on_train_begin(self, total_steps: int, step: int) -> None:
        """Open new event files, with all earlier steps."""
        del total_steps, step
        for file in self.folder.glob("events.out.tfevents.*"):
            file.unlink()
        files: Any = import_module("tensorboard.summary.writer.event_file_writer")
        self._writer = files.EventFileWriter(str(self.folder), flush_secs=FLUSH_SECONDS)
        trained = max((record.get("seconds") or 0.0 for record in self._earlier), default=0.0)
        seconds = 0.0
        for record in self._earlier:
            seconds = record.get("seconds") or seconds
            self._write(record, time.time() - trained + seconds)
        self._earlier = ()

    def on_step_end(self, record: StepRecord) -> None:
        """Write a step."""
        self._write(record.as_json(), time.time())

    def on_evaluate(self, record: EvaluationRecord) -> None:
        """Write an evaluation."""
        self._write(record.as_json(), time.time())

    def on_train_end(self) -> None:
        """Close the event files."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _write(self, record: Mapping[str, Any], at: float) -> None:
        events: Any = import_module("tensorboard.compat.proto.event_pb2")
        summaries: Any = import_module("tensorboard.compat.proto.summary_pb2")
        values = [
            summaries.Summary.Value(tag=tag, simple_value=value)
            for tag, value in scalars(record).items()
        ]
        summary = summaries.Summary(value=values)
        self._writer.add_event(
            events.Event(wall_time=at, step=int(record["step"]), summary=summary)
        )


def scalars(record: Mapping[str, Any]) -> dict[str, float]:
    """Return the figures of a line of metrics.jsonl by their tags; no figure that is not finite."""
    found: dict[str, float] = {}
    for key, value in record.items():
        if key in PLACES or not isinstance(value, int | float) or not math.isfinite(value):
            continue
        tag = f"eval/{key[5:]}" if key.startswith("eval_") else NAMES.get(key, f"train/{key}")
        found[tag] = float(value)
    return found
