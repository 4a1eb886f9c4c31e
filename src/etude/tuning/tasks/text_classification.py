"""Text classification: a class, several labels or a number for a text or a pair of texts.

A row has a text (`data.text`, perhaps `data.text_pair`) and a label; the classes are the labels of
the training data. What a label is (`data.label_kind`) is decided from all rows. The head is trained
in full beside the adapter and saved with it; names of classes, thresholds of labels, mean and
deviation of numbers are saved in `task.json`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from etude.core.errors import AdapterError, DataError
from etude.core.progress import Progress
from etude.tuning.artifacts import PreparedData
from etude.tuning.config.recipe import Recipe
from etude.tuning.config.sections.data import DataSpec
from etude.tuning.config.sections.named_files import NamedFile
from etude.tuning.data.batch import Batch, Layout
from etude.tuning.data.labelled import load_labelled
from etude.tuning.data.labels import (
    LabelKind,
    classes,
    describe_labels,
    label_kind,
    labels_of,
    number,
    require_learnable,
    rows_named,
    spec_labels,
)
from etude.tuning.data.samples import DataSplit
from etude.tuning.data.schema import Sample
from etude.tuning.fusion.layout import row_layout
from etude.tuning.fusion.packing_probe import exact_layout
from etude.tuning.metrics.metric import CORRECT, Metric
from etude.tuning.models.heads import Head
from etude.tuning.models.load import LoadedModel
from etude.tuning.objectives.base import Objective
from etude.tuning.objectives.classification import (
    HALF,
    Classification,
    MultiLabel,
    Regression,
    class_logits,
)
from etude.tuning.runs.folder import RunFolder
from etude.tuning.tasks.base import (
    ClassPrediction,
    LabelsPrediction,
    NumberPrediction,
    Prediction,
    TaskRecord,
    omission_notes,
)
from etude.tuning.tasks.baselines import baselines, beside_model
from etude.tuning.tasks.classifier_objective import (
    class_facts,
    class_weights_of,
    objective_of,
    refuse_unsuitable,
    weights_note,
)
from etude.tuning.tasks.classifier_results import measured, named
from etude.tuning.tasks.held_out import (
    context_notes,
    evaluate_held_out,
    require_held_out,
    whole_files,
    within_context,
)
from etude.tuning.tasks.text_encoder import (
    FAR_TOO_LONG,
    PROBLEMS,
    TextEncoder,
    encoded_text,
)
from etude.tuning.training.measurement import Measurement

LENGTH_MULTIPLE = 32
"""Rows are padded to a multiple of this. A processor's matrix library compiles code for each shape
that it meets: rows of every length made a step of MiniLM several times slower."""

Targets = Classification | MultiLabel | Regression


class TextClassification:
    """Task of assigning a class, labels or a number to a text or a pair of texts."""

    name = "text-classification"
    sample_score = CORRECT

    def read(self, recipe: Recipe) -> DataSplit:
        """Read texts and labels, and split them by class.

        Raises:
            DataError: as `load_labelled`; also if the labels cannot be learnt, or the recipe's
                options do not suit them.
        """
        split = load_labelled(recipe.data, recipe.train.seed)
        kind = _kind(split, recipe.data)
        require_learnable(split, recipe.data, kind)
        require_held_out(split)
        refuse_unsuitable(recipe, kind)
        notes = [*split.notes, *describe_labels(kind, split.train, recipe.data)]
        return DataSplit(split.train, split.eval, notes)

    def head(self, split: DataSplit, recipe: Recipe) -> Head:
        """Return a new head with an output per class or label, or one for a number."""
        kind = _kind(split, recipe.data)
        labels: tuple[str, ...] = ()
        options: dict[str, Any] = {}
        if kind == "number":
            values = [cast("float", number(str(sample.label))) for sample in split.train]
            options = {"mean": float(np.mean(values)), "deviation": float(np.std(values))}
        else:
            labels = spec_labels(recipe.data) or classes(split.train)
        seed = recipe.train.seed
        return Head("sequence-classification", labels, seed, PROBLEMS[kind], options)

    def expected_head(self, recipe: Recipe) -> Head:
        """Return a head with two classes: how many there are, the data say."""
        kind = recipe.data.label_kind
        problem = PROBLEMS["class" if kind == "auto" else kind]
        return Head("sequence-classification", seed=recipe.train.seed, problem=problem)

    def saved_head(self, record: TaskRecord) -> Head:
        """Return the saved head, with its classes in order.

        Raises:
            AdapterError: the record has no classes.
        """
        kind: LabelKind = record.options.get("kind", "class")
        if kind not in PROBLEMS or len(record.labels) < {"class": 2, "multi_label": 1}.get(kind, 0):
            raise AdapterError(
                "the class names of this classifier are missing (task.json), so its outputs cannot "
                "be interpreted; restore the file"
            )
        options = {name: value for name, value in record.options.items() if name != "kind"}
        return Head(
            "sequence-classification", record.labels, problem=PROBLEMS[kind], options=options
        )

    def encoder(self, loaded: LoadedModel, recipe: Recipe) -> TextEncoder:
        """Return an encoder with the classes of the loaded head."""
        spec = within_context(loaded, recipe.data)
        return TextEncoder(loaded.tokenizer, spec, loaded.head.labels, loaded.head)

    def encode(
        self, split: DataSplit, loaded: LoadedModel, recipe: Recipe, progress: Progress
    ) -> PreparedData:
        """Encode texts, each at most as long as the model's context."""
        notes = list(split.notes)
        encoder = self.encoder(loaded, recipe)
        # Of these samples the thresholds are chosen: saved ones would have an advantage.
        encoder.options.pop("thresholds", None)
        limit = encoder.spec.max_length
        notes += context_notes(recipe.data, limit)
        progress.start("Tokenising", len(split.train) + len(split.eval), "samples")
        train = encoder.encode_all(split.train, progress)
        held_out = encoder.encode_all(split.eval, progress)
        progress.finish()
        notes += omission_notes(train, held_out, "texts truncated on the right")
        if encoder.far_too_long:
            notes.append(
                f"{len(encoder.far_too_long):,} texts have more than {FAR_TOO_LONG} times the "
                f"{limit:,} tokens of data.max_length, of which the model sees the first at most: "
                f"{rows_named(encoder.far_too_long)}"
            )
        weights = class_weights_of(recipe, encoder, train)
        if weights is not None:
            notes.append(weights_note(weights, encoder.labels))
        facts = class_facts(encoder, train)
        return PreparedData(train, held_out, encoder, notes, facts)

    def read_evaluation(
        self,
        files: Sequence[NamedFile],
        loaded: LoadedModel,
        recipe: Recipe,
        progress: Progress,
    ) -> PreparedData:
        """Read every row of files with the run's columns; saved thresholds apply."""
        encoder = self.encoder(loaded, recipe)
        spec = whole_files(recipe.data, files, label_kind=encoder.kind)
        split = load_labelled(spec, recipe.train.seed)
        encoded = encoder.encode_all(split.train, progress)
        return PreparedData(encoded, encoded, encoder, split.notes)

    def record(self, loaded: LoadedModel, encoder: TextEncoder, recipe: Recipe) -> TaskRecord:
        """Return the names of the classes, and by what numbers and thresholds outputs are read."""
        del recipe
        options: dict[str, Any] = {}
        if encoder.kind != "class":
            options = {"kind": encoder.kind, **encoder.options}
        return TaskRecord(self.name, loaded.head.labels, options)

    def finish(self, folder: Path, loaded: LoadedModel, recipe: Recipe) -> None:
        """Write nothing more."""
        del folder, loaded, recipe

    def layout(self, recipe: Recipe, loaded: LoadedModel) -> Layout:
        """Return packed rows, or padded ones if the recipe says so or the model cannot pack."""
        return text_layout(recipe, loaded)

    def objective(
        self,
        recipe: Recipe,
        loaded: LoadedModel,
        data: PreparedData,
        folder: RunFolder,
        progress: Progress,
    ) -> Objective:
        """Return the loss for the kind of label, and the scores of baselines to compare with."""
        del loaded, folder
        encoder: TextEncoder = data.encoder
        found = baselines(
            encoder.kind,
            len(encoder.labels),
            data.train,
            data.eval,
            balanced=recipe.objective.class_weights == "balanced",
            progress=progress,
        )
        return objective_of(recipe, encoder, data.train, found)

    def evaluation_objective(
        self, recipe: Recipe, data: PreparedData, folder: RunFolder, *, adapted: bool
    ) -> Objective:
        """Return the loss for the kind of label; evaluations leave out weights."""
        del folder, adapted
        return objective_of(recipe, data.encoder, None)

    def metrics(self, objective: Objective) -> list[Metric]:
        """Return accuracy and macro-F1; F1 of labels; errors and correlations of numbers."""
        return list(objective.metrics)

    def measure(
        self,
        loaded: LoadedModel,
        data: PreparedData,
        recipe: Recipe,
        objective: Objective,
        progress: Progress,
    ) -> Measurement:
        """Measure the loss and the metrics of the predictions."""
        evaluation = evaluate_held_out(self, loaded, data, recipe, objective, progress)
        found = measured(data.encoder.kind, evaluation, data, recipe.eval.thresholds)
        known = cast("Targets", objective).baselines
        if known:
            beside = beside_model(known, found.metrics, objective.metrics)
            found.details["baselines"] = beside
        return found

    def sample_records(
        self, data: PreparedData, before: Measurement, after: Measurement
    ) -> list[dict[str, Any]]:
        """Return text, label, and base and tuned predictions of the first held-out samples."""
        records: list[dict[str, Any]] = []
        for i, sample in enumerate(data.eval.sources[: len(after.predictions)]):
            record: dict[str, Any] = {
                "origin": sample.origin,
                "prompt": _shown(sample),
                "reference": ", ".join(labels_of(sample)),
                "before": before.predictions[i],
                "after": after.predictions[i],
            }
            if after.scores:
                record |= {"score_before": before.scores[i], "score_after": after.scores[i]}
            records.append(record)
        return records

    def predict(
        self,
        loaded: LoadedModel,
        encoder: TextEncoder,
        inputs: Sequence[str | tuple[str, str]],
        recipe: Recipe,
    ) -> list[Prediction]:
        """Return the class, the labels or the number of each text or pair of texts.

        Raises:
            DataError: the run classifies pairs and an input is one text, or the other way round.
        """
        layout = self.layout(recipe, loaded)
        texts, pairs = _sides(inputs, encoder.spec)
        samples = [
            encoded_text(
                encoder.fitted(tokens, texts[i], None if pairs is None else pairs[i]),
                f"input {i + 1}",
            )
            for i, tokens in enumerate(encoder.tokens(texts, pairs) if texts else [])
        ]
        found: dict[int, Prediction] = {}
        loaded.model.eval()
        with torch.inference_mode(), row_layout(loaded.model, layout):
            lengths = [len(sample) for sample in samples]
            for row in layout.micro_batches(lengths, recipe.train.micro_tokens):
                logits = class_logits(loaded.model, Batch([samples[i] for i in row], layout))
                for i, scores in zip(row, logits, strict=True):
                    found[i] = _prediction(encoder, scores)
        return [found[i] for i in range(len(samples))]


def _kind(split: DataSplit, spec: DataSpec) -> LabelKind:
    return label_kind(spec, [*split.train, *split.eval])


def _prediction(encoder: TextEncoder, scores: torch.Tensor) -> Prediction:
    if encoder.kind == "number":
        mean, deviation = encoder.options["mean"], encoder.options["deviation"]
        return NumberPrediction(float(scores[0]) * deviation + mean)
    shares = scores.softmax(0) if encoder.kind == "class" else scores.double().sigmoid()
    probabilities = dict(zip(encoder.labels, map(float, shares), strict=True))
    if encoder.kind == "class":
        best = max(probabilities, key=lambda label: probabilities[label])
        return ClassPrediction(best, probabilities)
    thresholds = encoder.thresholds
    limits = np.full(len(encoder.labels), HALF) if thresholds is None else thresholds
    return LabelsPrediction(named(shares.cpu().numpy() > limits, encoder.labels), probabilities)


def _sides(
    inputs: Sequence[str | tuple[str, str]], spec: DataSpec
) -> tuple[list[str], list[str] | None]:
    """Return the texts, and the second ones of pairs.

    Raises:
        DataError: an input is not what the run was trained on.
    """
    if spec.text_pair is None:
        for place, one in enumerate(inputs, start=1):
            if not isinstance(one, str):
                raise DataError(f"input {place} is a pair, and this run classifies single texts")
        return cast("list[str]", list(inputs)), None
    for place, one in enumerate(inputs, start=1):
        if isinstance(one, str):
            raise DataError(
                f"input {place} is one text, and this run classifies pairs ({spec.text}, "
                f"{spec.text_pair})"
            )
    return [one[0] for one in inputs], [one[1] for one in inputs]


def _shown(sample: Sample) -> str:
    return sample.text or "" if sample.pair is None else f"{sample.text}\n{sample.pair}"


def text_layout(recipe: Recipe, loaded: LoadedModel, *, per_token: bool = False) -> Layout:
    """Return packed rows, or padded ones if the recipe says so or the model cannot pack.

    Args:
        recipe: of the run.
        loaded: a model with a new head, or the trunk alone.
        per_token: whether it has an output per token, not per text.
    """
    pad_id = int(loaded.tokenizer.pad_token_id or 0)
    return exact_layout(
        loaded.model,
        packing=recipe.data.packing,
        longest=within_context(loaded, recipe.data).max_length,
        outputs="tokens" if per_token else "samples",
        padded=Layout(packed=False, pad_id=pad_id, length_multiple=LENGTH_MULTIPLE),
    )
