"""Etude's side of against_trl.py: `tune` on a settings file, timed by the same ruler.

    python train_etude.py SETTINGS.json

Nothing is set here that a person would not set in a recipe. The run's own evaluation, which the
peer does not do, is cut to one row; both adapters are evaluated afterwards by another process.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from ruler import Ruler

from etude import Recipe, tune
from etude.tuning.callbacks import Callback, StepRecord
from etude.tuning.data import batch
from etude.tuning.data.encoded import EncodedSample
from etude.tuning.data.packing import PackedBatch


class Timed(Callback):
    """Passes the run's events on to the ruler."""

    def __init__(self, ruler: Ruler) -> None:
        self.ruler = ruler
        self.losses: list[float] = []

    def on_train_begin(self, total_steps: int, step: int) -> None:
        """The loop begins."""
        del total_steps, step
        self.ruler.begin()

    def on_step_end(self, record: StepRecord) -> None:
        """An optimiser step has ended."""
        self.ruler.step()
        self.losses.append(record.loss)


class CountedRows:
    """Lays packed rows as the trainer does, and counts their tokens, filling included."""

    def __init__(self, collate: Callable[..., PackedBatch]) -> None:
        self.collate = collate
        self.tokens = 0
        self.pairs = 0
        """Of a token and one that it attends to, itself included."""

    def __call__(self, samples: Sequence[EncodedSample]) -> PackedBatch:
        """Lay one row."""
        row = self.collate(samples)
        self.tokens += row.input_ids.numel()
        self.pairs += sum(len(one) * (len(one) + 1) // 2 for one in samples)
        return row


def main() -> None:
    settings = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    view = Timed(Ruler(settings["launched"]))
    # Batches lay their rows by this name.
    rows = batch.collate = CountedRows(batch.collate)
    output = Path(settings["output"])
    run = tune(Recipe.parse(settings["recipe"]), base=output, callbacks=[view])
    shutil.copytree(run.folder / "adapter", output / "adapter", dirs_exist_ok=True)
    view.ruler.record(
        settings["record"],
        tokens=run.summary["tokens"],
        trained_tokens=run.summary["trained_tokens"],
        eval_loss_after=run.summary["eval_loss"],
        computed_tokens=rows.tokens,
        attended_pairs=rows.pairs,
        losses=view.losses,
        trainable_parameters=run.summary["trainable_parameters"],
        adapter_dtypes=["float32"],
    )


if __name__ == "__main__":
    main()
