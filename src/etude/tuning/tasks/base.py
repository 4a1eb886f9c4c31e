"""Task: everything that depends on what a model is tuned for, so that nothing else does.

A task says how rows are read, which head the model has, how samples are encoded and laid out in
rows, what is minimised, which metrics are measured, and what a prediction is. Loading, quantising,
adapters, the training loop, checkpoints, resuming, the report and memory are shared by all tasks.
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
from etude.tuning.data.samples import DataSplit
from etude.tuning.metrics.metric import Metric
from etude.tuning.models.heads import Head
from etude.tuning.models.load import LoadedModel
from etude.tuning.objectives.base import Objective
from etude.tuning.runs.folder import RunFolder

RECORD = "task.json"
"""Beside the weights: what the task needs to use them again."""


@dataclass(frozen=True)
class TaskRecord:
    """What is saved with an adapter or model: which task it is for, and with which classes."""

    task: str
    labels: tuple[str, ...] = ()

    def write(self, folder: Path) -> None:
        """Write it beside the weights in `folder`.

        Raises:
            RunError: it cannot be written.
        """
        text = to_json({"task": self.task, "labels": list(self.labels)}, indent=2)
        try:
            replace_file(folder / RECORD, lambda file: file.write_text(text, "utf-8"))
        except OSError as error:
            raise RunError(f"cannot write {folder / RECORD}: {error.strerror}") from None

    @classmethod
    def read(cls, folder: Path) -> TaskRecord:
        """Read it; folders of version 0.1.0 have none and are causal language models.

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
    """What a model gave one input."""

    text: str
    """The answer, or the name of the class."""
    probabilities: dict[str, float] = field(default_factory=dict[str, float])
    """By class; empty where there are none."""

    def as_json(self) -> dict[str, Any]:
        """Return plain data, what is empty left out."""
        if not self.probabilities:
            return {"answer": self.text}
        return {"label": self.text, "probabilities": self.probabilities}


class Task(Protocol):
    """What a model is tuned for."""

    name: str
    """As in the recipe's `task`."""

    sample_score: Metric
    """What each line of samples.jsonl is scored by."""

    def read(self, recipe: Recipe) -> DataSplit:
        """Read the recipe's data and split it.

        Raises:
            DataError: the data are missing, or no rows of this task.
        """
        ...

    def head(self, split: DataSplit, recipe: Recipe) -> Head:
        """Return the head that the model needs for these data."""
        ...

    def expected_head(self, recipe: Recipe) -> Head:
        """Return the head as far as it is known before the data are read, to estimate memory."""
        ...

    def saved_head(self, record: TaskRecord) -> Head:
        """Return the head of a model that was tuned before."""
        ...

    def encoder(self, loaded: LoadedModel, recipe: Recipe) -> Any:
        """Return what turns this task's inputs into tokens."""
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

    def layout(self, recipe: Recipe, tokenizer: Any) -> Layout:
        """Return how samples are laid out in rows."""
        ...

    def objective(
        self,
        recipe: Recipe,
        loaded: LoadedModel,
        data: PreparedData,
        folder: RunFolder,
        progress: Progress,
    ) -> Objective:
        """Return what is minimised.

        Raises:
            DataError: the data cannot be learnt from by the recipe's objective.
        """
        ...

    def evaluation_objective(
        self, recipe: Recipe, data: PreparedData, folder: RunFolder, *, adapted: bool
    ) -> Objective:
        """Return the objective by which a finished run is measured again."""
        ...

    def metrics(self, objective: Objective) -> list[Metric]:
        """Return what is measured beside the loss, the most telling first."""
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
        """Return what the model gives each input."""
        ...
