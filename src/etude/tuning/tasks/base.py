"""Task interface: everything in a run that depends on the kind of task.

A task defines how rows are read, the model's head, how samples are encoded and batched, the
training objective, the metrics, and the form of a prediction. Loading, quantising, adapters, the
training loop, checkpoints, resuming, the report and memory planning are shared by all tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from etude.core.atomic_files import replace_file, to_json
from etude.core.errors import AdapterError, RunError
from etude.core.progress import Progress
from etude.tuning.adapters.read import read_json
from etude.tuning.artifacts import Measurement, PreparedData
from etude.tuning.config.recipe import Recipe
from etude.tuning.data.batch import Layout
from etude.tuning.data.encoded import EncodedSet
from etude.tuning.data.samples import DataSplit
from etude.tuning.metrics.metric import Metric
from etude.tuning.models.heads import Head
from etude.tuning.models.load import LoadedModel
from etude.tuning.objectives.base import Objective
from etude.tuning.runs.folder import RunFolder

RECORD = "task.json"
"""File beside the weights that records the task and its labels."""


@dataclass(frozen=True)
class TaskRecord:
    """Task and class labels saved with an adapter or model."""

    task: str
    labels: tuple[str, ...] = ()

    def write(self, folder: Path) -> None:
        """Write the record beside the weights in `folder`.

        Raises:
            RunError: the file cannot be written.
        """
        text = to_json({"task": self.task, "labels": list(self.labels)}, indent=2)
        try:
            replace_file(folder / RECORD, lambda file: file.write_text(text, "utf-8"))
        except OSError as error:
            raise RunError(f"cannot write {folder / RECORD}: {error.strerror}") from None

    @classmethod
    def read(cls, folder: Path) -> TaskRecord:
        """Read the record; folders of version 0.1.0 have none and are causal language models.

        Raises:
            AdapterError: the file is damaged.
        """
        file = folder / RECORD
        if not file.exists():
            return cls("causal-lm")
        content = read_json(file)
        try:
            return cls(str(content["task"]), tuple(map(str, content["labels"])))
        except (KeyError, TypeError):
            raise AdapterError(f"{file} is damaged: it names no task and labels") from None


@dataclass(frozen=True)
class Prediction:
    """Prediction of a model for one input."""

    text: str
    """The answer, or the name of the class."""
    probabilities: dict[str, float] = field(default_factory=dict[str, float])
    """Probability by class; empty for generated text."""

    def as_json(self) -> dict[str, Any]:
        """Return plain data without empty fields."""
        if not self.probabilities:
            return {"answer": self.text}
        return {"label": self.text, "probabilities": self.probabilities}


class Task(Protocol):
    """A fine-tuning task."""

    name: str
    """Its name in the recipe's `task`."""

    sample_score: Metric
    """Name of the score in each line of samples.jsonl."""

    def read(self, recipe: Recipe) -> DataSplit:
        """Read the recipe's data and split it.

        Raises:
            DataError: the data are missing, or not suitable for this task.
        """
        ...

    def head(self, split: DataSplit, recipe: Recipe) -> Head:
        """Return the head that the model needs for these data."""
        ...

    def expected_head(self, recipe: Recipe) -> Head:
        """Return the head as far as it is known before the data are read, to estimate memory."""
        ...

    def saved_head(self, record: TaskRecord) -> Head:
        """Return the head of a tuned model."""
        ...

    def encoder(self, loaded: LoadedModel, recipe: Recipe) -> Any:
        """Return the encoder that turns this task's inputs into tokens."""
        ...

    def encode(
        self, split: DataSplit, loaded: LoadedModel, recipe: Recipe, progress: Progress
    ) -> PreparedData:
        """Turn samples into tokens and targets.

        Raises:
            DataError: a sample cannot be trained or evaluated on.
        """
        ...

    def read_evaluation(
        self, file: Path, loaded: LoadedModel, recipe: Recipe, progress: Progress
    ) -> PreparedData:
        """Read every row of `file` as evaluation data, with the run's columns."""
        ...

    def layout(self, recipe: Recipe, loaded: LoadedModel) -> Layout:
        """Return the batch layout: packed or padded rows, whatever the model computes exactly."""
        ...

    def objective(
        self,
        recipe: Recipe,
        loaded: LoadedModel,
        data: PreparedData,
        folder: RunFolder,
        progress: Progress,
    ) -> Objective:
        """Return the training objective.

        Raises:
            DataError: the data do not suit the recipe's objective.
        """
        ...

    def evaluation_objective(
        self, recipe: Recipe, data: PreparedData, folder: RunFolder, *, adapted: bool
    ) -> Objective:
        """Return the objective used to re-evaluate a finished run."""
        ...

    def metrics(self, objective: Objective) -> list[Metric]:
        """Return the metrics beside the loss, the most important first."""
        ...

    def measure(
        self,
        loaded: LoadedModel,
        data: PreparedData,
        recipe: Recipe,
        objective: Objective,
        progress: Progress,
    ) -> Measurement:
        """Measure the model on the held-out samples."""
        ...

    def sample_records(
        self, data: PreparedData, before: Measurement, after: Measurement
    ) -> list[dict[str, Any]]:
        """Return the lines of samples.jsonl."""
        ...

    def predict(
        self, loaded: LoadedModel, encoder: Any, inputs: Sequence[str], recipe: Recipe
    ) -> list[Prediction]:
        """Return the prediction for each input."""
        ...


def omission_notes(train: EncodedSet, held_out: EncodedSet, truncated: str) -> list[str]:
    """Return a line for each reason why samples were dropped, and for those that were truncated.

    Args:
        train: encoded training samples.
        held_out: encoded evaluation samples.
        truncated: what was truncated, and where: `prompts truncated on the left`.
    """
    notes: list[str] = []
    for name, encoded in (("training", train), ("evaluation", held_out)):
        dropped = encoded.stats.dropped.items()
        notes += [f"{name}: dropped, {why}: {left}" for why, left in dropped]
        if encoded.stats.cut.count:
            notes.append(f"{name}: {truncated}: {encoded.stats.cut}")
    return notes
