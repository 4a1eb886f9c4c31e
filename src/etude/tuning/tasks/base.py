"""Task interface: everything in a run that depends on the kind of task.

A task defines how rows are read, the model's head, how samples are encoded and batched, the
training objective, the metrics, and the form of a prediction. Loading, quantising, adapters, the
training loop, checkpoints, resuming, the report and memory planning are shared by all tasks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from etude.core.atomic_files import replace_file, to_json
from etude.core.errors import AdapterError, RunError
from etude.core.progress import Progress
from etude.tuning.adapters.read import read_json
from etude.tuning.artifacts import PreparedData
from etude.tuning.config.recipe import Recipe
from etude.tuning.config.renamed_keys import current_task
from etude.tuning.config.sections.named_files import NamedFile
from etude.tuning.data.batch import Layout
from etude.tuning.data.encoded import EncodedSet
from etude.tuning.data.samples import DataSplit
from etude.tuning.metrics.metric import Metric
from etude.tuning.models.heads import Head
from etude.tuning.models.load import LoadedModel
from etude.tuning.objectives.base import Objective
from etude.tuning.runs.folder import RunFolder
from etude.tuning.training.measurement import Measurement

RECORD = "task.json"
"""File beside the weights that records the task and its labels."""


@dataclass(frozen=True)
class TaskRecord:
    """What is saved with an adapter or model so that its outputs can be interpreted."""

    task: str
    labels: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Further facts of the task: the scheme of tags, the threshold of each label."""

    def write(self, folder: Path) -> None:
        """Write the record beside the weights in `folder`.

        Raises:
            RunError: the file cannot be written.
        """
        content: dict[str, Any] = {"task": self.task, "labels": list(self.labels)}
        if self.options:
            content["options"] = dict(self.options)
        text = to_json(content, indent=2)
        try:
            replace_file(folder / RECORD, lambda file: file.write_text(text, "utf-8"))
        except OSError as error:
            raise RunError(f"cannot write {folder / RECORD}: {error.strerror}") from None

    @classmethod
    def read(cls, folder: Path) -> TaskRecord:
        """Read the record; folders of version 0.1.0 have none: their models were tuned for chat.

        Raises:
            AdapterError: the file is damaged.
        """
        file = folder / RECORD
        if not file.exists():
            return cls("chat")
        content = read_json(file)
        try:
            return cls(
                current_task(str(content["task"])),
                tuple(map(str, content["labels"])),
                dict(content.get("options") or {}),
            )
        except (KeyError, TypeError, ValueError):
            raise AdapterError(f"{file} is damaged: it names no task and labels") from None


class Prediction(Protocol):
    """Prediction of a model for one input."""

    @property
    def text(self) -> str:
        """The prediction as text: the answer, or the name of the class."""
        ...

    def as_json(self) -> dict[str, Any]:
        """Return plain data."""
        ...


@dataclass(frozen=True)
class Answer:
    """Generated text."""

    text: str

    def as_json(self) -> dict[str, Any]:
        """Return `answer`."""
        return {"answer": self.text}


@dataclass(frozen=True)
class ClassPrediction:
    """The most probable class."""

    text: str
    """Name of the class."""
    probabilities: Mapping[str, float]
    """Probability by class."""

    def as_json(self) -> dict[str, Any]:
        """Return `label` and `probabilities`."""
        return {"label": self.text, "probabilities": dict(self.probabilities)}


@dataclass(frozen=True)
class PredictedSpan:
    """An entity that was found in a text."""

    start: int
    """Its first character, from 0."""
    end: int
    """The character after its last."""
    label: str
    """Its type."""
    text: str
    probability: float
    """That exactly these words are an entity of this type, 0 to 1."""
    words: tuple[int, int] | None = None
    """Where the input was a list of words: its first word, and the one after its last."""

    def as_json(self) -> dict[str, Any]:
        """Return plain data."""
        fields = {name: getattr(self, name) for name in ("start", "end", "label", "text")}
        fields["probability"] = self.probability
        return fields if self.words is None else {**fields, "words": list(self.words)}


@dataclass(frozen=True)
class SpansPrediction:
    """The entities of a text, in order."""

    spans: tuple[PredictedSpan, ...]
    source: str
    """The text; words that were given as a list are joined by spaces."""

    @property
    def text(self) -> str:
        """The entities as text: `Aspirin (Chemical), gastric ulcer (Disease)`."""
        return ", ".join(f"{span.text} ({span.label})" for span in self.spans)

    def as_json(self) -> dict[str, Any]:
        """Return `spans`, whose characters count in the input."""
        return {"spans": [span.as_json() for span in self.spans]}


@dataclass(frozen=True)
class LabelsPrediction:
    """The labels whose probability is above their threshold: none, one or several."""

    labels: tuple[str, ...]
    probabilities: Mapping[str, float]
    """Probability by label."""

    @property
    def text(self) -> str:
        """The labels in one line."""
        return ", ".join(self.labels)

    def as_json(self) -> dict[str, Any]:
        """Return `labels` and `probabilities`."""
        return {"labels": list(self.labels), "probabilities": dict(self.probabilities)}


@dataclass(frozen=True)
class NumberPrediction:
    """A predicted quantity."""

    number: float

    @property
    def text(self) -> str:
        """The number with four significant digits."""
        return f"{self.number:.4g}"

    def as_json(self) -> dict[str, Any]:
        """Return `number`."""
        return {"number": self.number}


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
        self,
        files: Sequence[NamedFile],
        loaded: LoadedModel,
        recipe: Recipe,
        progress: Progress,
    ) -> PreparedData:
        """Read every row of `files` as evaluation data, with the run's columns."""
        ...

    def record(self, loaded: LoadedModel, encoder: Any, recipe: Recipe) -> TaskRecord:
        """Return what to save with the adapter so that `saved_head` and `predict` can use it."""
        ...

    def finish(self, folder: Path, loaded: LoadedModel, recipe: Recipe) -> None:
        """Write further files beside the saved adapter or model: what other programs need."""
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
        self, loaded: LoadedModel, encoder: Any, inputs: Sequence[Any], recipe: Recipe
    ) -> Sequence[Prediction]:
        """Return the prediction for each input: a text, or what else the task takes."""
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
        if encoded.stats.folded.count:
            notes.append(
                f"{name}: the chat template takes no system message, so it comes first in the "
                f"user's turn: {encoded.stats.folded}"
            )
    return notes
