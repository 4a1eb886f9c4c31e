"""Text classification: one class per text, predicted by a new head on an encoder or a decoder.

A row has a text and a label; the classes are the labels of the training data. The head is trained
in full beside the adapter and saved with it; the class names are saved in `task.json`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from etude.core.errors import AdapterError, DataError, did_you_mean
from etude.core.progress import Progress
from etude.tuning.artifacts import Measurement, PreparedData
from etude.tuning.config.recipe import Recipe
from etude.tuning.config.sections.data import DataSpec
from etude.tuning.data.batch import Batch, Layout
from etude.tuning.data.columns import missing, read_text
from etude.tuning.data.counts import Counts, Tally
from etude.tuning.data.encode import TOO_LONG
from etude.tuning.data.encoded import EncodedSample, EncodedSet
from etude.tuning.data.samples import DataSplit, load_samples
from etude.tuning.data.schema import Sample
from etude.tuning.data.sources.registry import Row
from etude.tuning.metrics.metric import CORRECT, Metric
from etude.tuning.models.heads import Head
from etude.tuning.models.load import LoadedModel
from etude.tuning.objectives.base import Objective
from etude.tuning.objectives.classification import Classification, class_logits
from etude.tuning.runs.folder import RunFolder
from etude.tuning.tasks.base import Prediction, TaskRecord, omission_notes
from etude.tuning.training.evaluate import evaluate

BATCH = 512
"""Texts per tokenizer call."""

LENGTH_MULTIPLE = 32
"""Rows are padded to a multiple of this. A processor's matrix library compiles code for each shape
that it meets: rows of every length made a step of MiniLM several times slower."""

SHOWN = 64
"""Maximum number of samples in samples.jsonl."""


class TextEncoder:
    """Encoder of texts and labels; adds the tokenizer's special tokens.

    Args:
        tokenizer: the model's.
        spec: the data section; `max_length` and `too_long` are used.
        labels: class names, in the order of the model's outputs.
    """

    def __init__(self, tokenizer: Any, spec: DataSpec, labels: Sequence[str]) -> None:
        self.tokenizer = tokenizer
        self.spec = spec
        self.labels = tuple(labels)
        self._index = {label: index for index, label in enumerate(self.labels)}

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the tokens of each text, not truncated."""
        encoded: Any = self.tokenizer(list(texts), truncation=False, verbose=False)
        return cast("list[list[int]]", encoded["input_ids"])

    def cut(self, ids: list[int], max_length: int) -> list[int]:
        """Return tokens truncated on the right to `max_length`, keeping the final special token."""
        if len(ids) <= max_length:
            return ids
        special = getattr(self.tokenizer, "sep_token_id", None)
        if special is not None and ids[-1] == special:
            return [*ids[: max_length - 1], special]
        return ids[:max_length]

    def encode_all(self, samples: Iterable[Sample], progress: Progress | None = None) -> EncodedSet:
        """Encode samples; texts that are too long are handled as `data.too_long` says.

        Raises:
            DataError: a label is not a class, or a text is too long and `data.too_long` is `error`.
        """
        counts = Counts()
        kept: list[EncodedSample] = []
        sources: list[Sample] = []
        unknown: list[Sample] = []
        listed = list(samples)
        for start in range(0, len(listed), BATCH):
            batch = listed[start : start + BATCH]
            for sample, ids in zip(batch, self.token_ids([_text(s) for s in batch]), strict=True):
                if sample.label not in self._index:
                    unknown.append(sample)
                    continue
                fitted = self._fitted(ids, sample, counts)
                if fitted is None:
                    continue
                encoded = EncodedSample(
                    np.asarray(fitted, dtype=np.int32),
                    np.zeros(len(fitted), dtype=np.bool_),
                    sample.origin,
                    label=self._index[sample.label],
                )
                kept.append(encoded)
                sources.append(sample)
                counts.add([len(fitted)], 1, None)
            if progress is not None:
                progress.advance(len(batch))
        if unknown:
            raise DataError(_unknown_labels(unknown, self.labels))
        if not kept:
            raise DataError("every sample was dropped: all are longer than data.max_length")
        return EncodedSet(kept, sources, counts.stats())

    def _fitted(self, ids: list[int], sample: Sample, counts: Counts) -> list[int] | None:
        """Return tokens within `max_length`; None for a dropped sample."""
        limit = self.spec.max_length
        if len(ids) <= limit:
            return ids
        if self.spec.too_long == "cut_prompt":
            counts.cut.add(sample.origin)
            return self.cut(ids, limit)
        if self.spec.too_long == "error":
            raise DataError(
                f"{sample.origin}: {len(ids):,} tokens, more than data.max_length ({limit:,}); "
                "raise it, or set data.too_long to drop or cut_prompt"
            )
        counts.dropped.setdefault(TOO_LONG, Tally()).add(sample.origin)
        return None


class TextClassification:
    """Task of assigning a text to one of several classes."""

    name = "text-classification"
    sample_score = CORRECT

    def read(self, recipe: Recipe) -> DataSplit:
        """Read texts and labels.

        Raises:
            DataError: as `load_samples`; also if there are fewer than two classes, or a class
                occurs in the evaluation data only.
        """
        split = load_samples(recipe.data, recipe.train.seed, _reader)
        if not split.eval:
            raise DataError(
                "there are no evaluation samples: name an evaluation file (data.eval), "
                "or hold out a share of the data (data.eval_fraction)"
            )
        labels = classes(split.train)
        if len(labels) < 2:
            only = labels[0] if labels else ""
            raise DataError(
                f"every training row has the label {only!r}; a classifier needs at least two"
            )
        unseen = [sample for sample in split.eval if sample.label not in labels]
        if unseen:
            raise DataError(_unknown_labels(unseen, labels))
        return split

    def head(self, split: DataSplit, recipe: Recipe) -> Head:
        """Return a new head with one class per label of the training data."""
        return Head("sequence-classification", classes(split.train), recipe.train.seed)

    def expected_head(self, recipe: Recipe) -> Head:
        """Return a head with two classes: how many there are, the data say."""
        return Head("sequence-classification", seed=recipe.train.seed)

    def saved_head(self, record: TaskRecord) -> Head:
        """Return the saved head, with its classes in order.

        Raises:
            AdapterError: the record has no classes.
        """
        if len(record.labels) < 2:
            raise AdapterError(
                "the class names of this classifier are missing (task.json), so its outputs cannot "
                "be interpreted; restore the file"
            )
        return Head("sequence-classification", record.labels)

    def encoder(self, loaded: LoadedModel, recipe: Recipe) -> TextEncoder:
        """Return an encoder with the classes of the loaded head."""
        return TextEncoder(loaded.tokenizer, _spec(loaded, recipe), loaded.head.labels)

    def encode(
        self, split: DataSplit, loaded: LoadedModel, recipe: Recipe, progress: Progress
    ) -> PreparedData:
        """Encode texts, each at most as long as the model's context."""
        notes = list(split.notes)
        encoder = self.encoder(loaded, recipe)
        if encoder.spec.max_length != recipe.data.max_length:
            notes.append(
                f"data.max_length {recipe.data.max_length} exceeds the model's context: using "
                f"{encoder.spec.max_length}"
            )
        progress.start("Tokenising", len(split.train) + len(split.eval), "samples")
        train = encoder.encode_all(split.train, progress)
        held_out = encoder.encode_all(split.eval, progress)
        progress.finish()
        notes += omission_notes(train, held_out, "texts truncated on the right")
        counted = Counter(sample.label for sample in train.samples)
        facts = {f"class {label}": counted[index] for index, label in enumerate(encoder.labels)}
        return PreparedData(train, held_out, encoder, notes, facts)

    def read_evaluation(
        self, file: Path, loaded: LoadedModel, recipe: Recipe, progress: Progress
    ) -> PreparedData:
        """Read every row of a file with the run's columns."""
        spec = recipe.data.model_copy(
            update={
                "kind": "files",
                "train": str(file),
                "eval": None,
                "eval_fraction": 0.0,
                "max_train": None,
            }
        )
        split = load_samples(spec, recipe.train.seed, _reader)
        encoder = self.encoder(loaded, recipe)
        encoded = encoder.encode_all(split.train, progress)
        return PreparedData(encoded, encoded, encoder, split.notes)

    def layout(self, recipe: Recipe, loaded: LoadedModel) -> Layout:
        """Return padded rows: a head of classes has one output a row."""
        del recipe
        pad_id = int(loaded.tokenizer.pad_token_id or 0)
        return Layout(packed=False, pad_id=pad_id, length_multiple=LENGTH_MULTIPLE)

    def objective(
        self,
        recipe: Recipe,
        loaded: LoadedModel,
        data: PreparedData,
        folder: RunFolder,
        progress: Progress,
    ) -> Objective:
        """Return cross-entropy over the classes."""
        del recipe, data, folder, progress
        return Classification(len(loaded.head.labels))

    def evaluation_objective(
        self, recipe: Recipe, data: PreparedData, folder: RunFolder, *, adapted: bool
    ) -> Objective:
        """Return cross-entropy over the classes."""
        del recipe, folder, adapted
        return Classification(len(data.encoder.labels))

    def metrics(self, objective: Objective) -> list[Metric]:
        """Return accuracy and macro-F1."""
        return list(objective.metrics)

    def measure(
        self,
        loaded: LoadedModel,
        data: PreparedData,
        recipe: Recipe,
        objective: Objective,
        progress: Progress,
    ) -> Measurement:
        """Measure the loss and the metrics of the predicted classes."""
        evaluation = evaluate(
            loaded.model,
            objective,
            data.eval.samples,
            recipe.train.micro_tokens,
            progress,
            layout=self.layout(recipe, loaded),
        )
        labels = data.encoder.labels
        outputs = evaluation.outputs[:SHOWN]
        right = [
            100.0 * (sample.label == output)
            for sample, output in zip(data.eval.samples, outputs, strict=False)
        ]
        names = [labels[output] for output in outputs]
        return Measurement(evaluation.loss, evaluation.metrics, names, right)

    def sample_records(
        self, data: PreparedData, before: Measurement, after: Measurement
    ) -> list[dict[str, Any]]:
        """Return text, label, and base and tuned predictions of the first held-out samples."""
        return [
            {
                "origin": sample.origin,
                "prompt": _text(sample),
                "reference": sample.label,
                "before": before.predictions[i],
                "after": after.predictions[i],
                "score_before": before.scores[i],
                "score_after": after.scores[i],
            }
            for i, sample in enumerate(data.eval.sources[: len(after.predictions)])
        ]

    def predict(
        self, loaded: LoadedModel, encoder: TextEncoder, inputs: Sequence[str], recipe: Recipe
    ) -> list[Prediction]:
        """Return the most probable class of each text, and the probability of every class."""
        layout = self.layout(recipe, loaded)
        samples = [
            EncodedSample(
                np.asarray(encoder.cut(ids, encoder.spec.max_length), dtype=np.int32),
                np.zeros(min(len(ids), encoder.spec.max_length), dtype=np.bool_),
                f"input {number}",
            )
            for number, ids in enumerate(encoder.token_ids(inputs), start=1)
        ]
        found: dict[int, Prediction] = {}
        loaded.model.eval()
        with torch.inference_mode():
            lengths = [len(sample) for sample in samples]
            for row in layout.micro_batches(lengths, recipe.train.micro_tokens):
                logits = class_logits(loaded.model, Batch([samples[i] for i in row], layout))
                for i, shares in zip(row, logits.softmax(dim=1), strict=True):
                    named = {
                        label: float(p) for label, p in zip(encoder.labels, shares, strict=True)
                    }
                    found[i] = Prediction(max(named, key=lambda label: named[label]), named)
        return [found[i] for i in range(len(samples))]


def classes(samples: Iterable[Sample]) -> tuple[str, ...]:
    """Return the distinct labels: sorted as numbers if all are numbers, else as text."""
    labels = {cast("str", sample.label) for sample in samples}
    if all(label.lstrip("-").isdigit() for label in labels):
        return tuple(sorted(labels, key=int))
    return tuple(sorted(labels))


def _reader(spec: DataSpec, first: Row) -> Callable[[Row], Sample]:
    """Return a function that reads the text and label of a row."""
    del first

    def read(row: Row) -> Sample:
        text = read_text(row, spec.text, "data.text")
        if not text.strip():
            raise DataError(f"{row.origin}: column {spec.text!r} is empty")
        return Sample((), text, row.origin, label=_label(row, spec.label))

    return read


def _label(row: Row, column: str) -> str:
    """Return the label of a row as text.

    Raises:
        DataError: it is missing, or not a text, integer or boolean.
    """
    if column not in row.values:
        raise missing(row, column, "data.label")
    value: Any = row.values[column]
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int | str) and str(value).strip():
        return str(value).strip()
    raise DataError(
        f"{row.origin}: column {column!r} must hold a class label (text, integer or boolean), "
        f"got {value!r}"
    )


def _text(sample: Sample) -> str:
    return sample.text or ""


def _unknown_labels(samples: Sequence[Sample], labels: Sequence[str]) -> str:
    first = samples[0]
    where = ", ".join(sample.origin for sample in samples[:3])
    more = f" and {len(samples) - 3} more" if len(samples) > 3 else ""
    near = did_you_mean(str(first.label), labels)
    return (
        f"the training data have no label {first.label!r}{near}: {where}{more}; "
        "remove these rows, or add rows with this label to the training data"
    )


def _spec(loaded: LoadedModel, recipe: Recipe) -> DataSpec:
    """Return the recipe's data section, with `max_length` limited to the model's context."""
    context = getattr(loaded.model.config, "max_position_embeddings", None)
    if context is None or recipe.data.max_length <= context:
        return recipe.data
    return recipe.data.model_copy(update={"max_length": context})
