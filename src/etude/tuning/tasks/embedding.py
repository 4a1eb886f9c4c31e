"""Text embeddings: texts that belong together get similar vectors, for search and clustering.

A row has a text and its positive (a question and its answer), perhaps a negative; or a text and a
label, and texts of one class belong together. A text's vector is the mean of its tokens' states,
of length one. No head is added; what is saved opens in sentence-transformers.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from etude.core.errors import DataError
from etude.core.progress import Progress
from etude.tuning.artifacts import PreparedData
from etude.tuning.config.recipe import Recipe
from etude.tuning.config.sections.data import DataSpec
from etude.tuning.config.sections.named_files import NamedFile
from etude.tuning.data.batch import Batch, Layout
from etude.tuning.data.counts import Counts, Tally
from etude.tuning.data.encoded import EncodedSample, EncodedSet
from etude.tuning.data.labels import labels_of
from etude.tuning.data.samples import DataSplit, load_samples
from etude.tuning.data.schema import Sample
from etude.tuning.data.text_pairs import pair_reader
from etude.tuning.fusion.layout import row_layout
from etude.tuning.metrics.metric import RANK, Metric
from etude.tuning.models.heads import Head
from etude.tuning.models.load import LoadedModel
from etude.tuning.objectives.base import Objective
from etude.tuning.objectives.contrastive import Contrastive, embed, retrieval_ranks
from etude.tuning.runs.folder import RunFolder
from etude.tuning.tasks.base import TaskRecord, omission_notes
from etude.tuning.tasks.classifier_results import SHOWN
from etude.tuning.tasks.held_out import (
    context_notes,
    evaluate_held_out,
    require_held_out,
    whole_files,
    within_context,
)
from etude.tuning.tasks.sentence_transformers import write_embedder
from etude.tuning.tasks.text_classification import text_layout
from etude.tuning.tasks.text_encoder import BATCH, TextEncoder, Tokens
from etude.tuning.training.measurement import Measurement

TRUNK = Head("none")


@dataclass(frozen=True)
class EmbeddingPrediction:
    """The vector of a text."""

    vector: tuple[float, ...]

    @property
    def text(self) -> str:
        """The vector's size, for tables of samples."""
        return f"a vector of {len(self.vector)} numbers"

    def as_json(self) -> dict[str, Any]:
        """Return `embedding`."""
        return {"embedding": list(self.vector)}


class EmbeddingEncoder(TextEncoder):
    """Encoder of a text with its positive and negative.

    Args:
        tokenizer: the model's.
        spec: the data section; `max_length` and `too_long` are used, for each text by itself.
    """

    def __init__(self, tokenizer: Any, spec: DataSpec) -> None:
        super().__init__(tokenizer, spec, ())

    def encode_all(self, samples: Iterable[Sample], progress: Progress | None = None) -> EncodedSet:
        """Encode samples; one of which any text is dropped is dropped.

        Raises:
            DataError: a text is too long and `data.too_long` is `error`; or all are dropped.
        """
        counts = Counts()
        kept: list[EncodedSample] = []
        sources: list[Sample] = []
        listed = list(samples)
        classes = {label: index for index, label in enumerate(sorted(_labels(listed)))}
        for start in range(0, len(listed), BATCH):
            batch = listed[start : start + BATCH]
            columns = [
                self._ids([sample.text for sample in batch]),
                self._ids([sample.positive for sample in batch]),
                self._ids([sample.negative for sample in batch]),
            ]
            for sample, *ids in zip(batch, *columns, strict=True):
                sides = [self._side(one, sample, counts) for one in ids if one is not None]
                if any(side is None for side in sides):
                    continue
                whole = [side for side in sides if side is not None]
                label = None if sample.label is None else classes[_class(sample)]
                kept.append(replace(_joined(whole), label=label))
                sources.append(sample)
                counts.add([len(side) for side in whole], 1, None)
            if progress is not None:
                progress.advance(len(batch))
        if not kept:
            raise DataError("every sample was dropped: all are longer than data.max_length")
        return EncodedSet(kept, sources, counts.stats())

    def _ids(self, texts: Sequence[str | None]) -> list[list[int] | None]:
        """Return the tokens of each text that is there."""
        present = iter(self.token_ids([text for text in texts if text is not None]) or [])
        return [None if text is None else next(present) for text in texts]

    def _side(self, ids: list[int], sample: Sample, counts: Counts) -> EncodedSample | None:
        fitted = self._kept(Tokens(ids), sample, counts)
        return None if fitted is None else plain_sample(fitted.ids, sample.origin)

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the tokens of each text, not truncated."""
        return super().token_ids(texts) if texts else []


class Embedding:
    """Task of mapping texts to vectors."""

    name = "embedding"
    sample_score = RANK

    def read(self, recipe: Recipe) -> DataSplit:
        """Read texts with their positives, or with labels.

        Raises:
            DataError: as `load_samples`; also if a class has a single text, or there is one class.
        """
        split = load_samples(recipe.data, recipe.train.seed, pair_reader)
        require_held_out(split)
        notes = list(split.notes)
        train = with_positives(split.train, recipe.train.seed, "training", notes)
        held_out = with_positives(split.eval, recipe.train.seed, "evaluation", notes)
        return DataSplit(train, held_out, notes)

    def head(self, split: DataSplit, recipe: Recipe) -> Head:
        """Return no head."""
        del split, recipe
        return TRUNK

    def expected_head(self, recipe: Recipe) -> Head:
        """Return no head."""
        del recipe
        return TRUNK

    def saved_head(self, record: TaskRecord) -> Head:
        """Return no head."""
        del record
        return TRUNK

    def encoder(self, loaded: LoadedModel, recipe: Recipe) -> EmbeddingEncoder:
        """Return an encoder within the model's context."""
        return EmbeddingEncoder(loaded.tokenizer, within_context(loaded, recipe.data))

    def encode(
        self, split: DataSplit, loaded: LoadedModel, recipe: Recipe, progress: Progress
    ) -> PreparedData:
        """Encode texts, each at most as long as the model's context."""
        notes = list(split.notes)
        encoder = self.encoder(loaded, recipe)
        notes += context_notes(recipe.data, encoder.spec.max_length)
        progress.start("Tokenising", len(split.train) + len(split.eval), "samples")
        train = encoder.encode_all(split.train, progress)
        held_out = encoder.encode_all(split.eval, progress)
        progress.finish()
        notes += omission_notes(train, held_out, "texts truncated on the right")
        negatives = sum(sample.negative is not None for sample in train.samples)
        return PreparedData(train, held_out, encoder, notes, {"with a negative": negatives})

    def read_evaluation(
        self,
        files: Sequence[NamedFile],
        loaded: LoadedModel,
        recipe: Recipe,
        progress: Progress,
    ) -> PreparedData:
        """Read every row of files with the run's columns."""
        spec = whole_files(recipe.data, files)
        split = load_samples(spec, recipe.train.seed, pair_reader)
        notes = list(split.notes)
        samples = with_positives(split.train, recipe.train.seed, "evaluation", notes)
        encoder = self.encoder(loaded, recipe)
        encoded = encoder.encode_all(samples, progress)
        return PreparedData(encoded, encoded, encoder, notes)

    def record(self, loaded: LoadedModel, encoder: EmbeddingEncoder, recipe: Recipe) -> TaskRecord:
        """Return how vectors are made."""
        del loaded, recipe
        options = {"pooling": "mean", "normalize": True, "max_length": encoder.spec.max_length}
        return TaskRecord(self.name, options=options)

    def finish(self, folder: Path, loaded: LoadedModel, recipe: Recipe) -> None:
        """Write what sentence-transformers needs to open the folder."""
        write_embedder(folder, loaded, within_context(loaded, recipe.data).max_length)

    def layout(self, recipe: Recipe, loaded: LoadedModel) -> Layout:
        """Return packed rows, or padded ones if the recipe says so or the model cannot pack."""
        return text_layout(recipe, loaded, per_token=True)

    def objective(
        self,
        recipe: Recipe,
        loaded: LoadedModel,
        data: PreparedData,
        folder: RunFolder,
        progress: Progress,
    ) -> Objective:
        """Return the contrastive loss."""
        del loaded, data, folder, progress
        return Contrastive(recipe.objective.temperature)

    def evaluation_objective(
        self, recipe: Recipe, data: PreparedData, folder: RunFolder, *, adapted: bool
    ) -> Objective:
        """Return the contrastive loss."""
        del data, folder, adapted
        return Contrastive(recipe.objective.temperature)

    def metrics(self, objective: Objective) -> list[Metric]:
        """Return the retrieval metrics."""
        return list(objective.metrics)

    def measure(
        self,
        loaded: LoadedModel,
        data: PreparedData,
        recipe: Recipe,
        objective: Objective,
        progress: Progress,
    ) -> Measurement:
        """Measure the loss and how well each held-out text finds its positive among all."""
        evaluation = evaluate_held_out(self, loaded, data, recipe, objective, progress)
        shown = nearest(evaluation.outputs, SHOWN)
        texts = [_document(data.eval.sources, place) for place, _ in shown]
        scores = [100.0 / rank for _, rank in shown]
        found = retrieval_ranks(data.eval.samples, evaluation.outputs)
        first = [int(ranks[0]) for ranks in found if len(ranks)]
        details = {"retrieval": {"ranks": first}}
        return Measurement(evaluation.loss, evaluation.metrics, texts, scores, details)

    def sample_records(
        self, data: PreparedData, before: Measurement, after: Measurement
    ) -> list[dict[str, Any]]:
        """Return text, positive, and the nearest text before and after of held-out samples."""
        return [
            {
                "origin": sample.origin,
                "prompt": sample.text or "",
                "reference": sample.positive,
                "before": before.predictions[i],
                "after": after.predictions[i],
                "score_before": before.scores[i],
                "score_after": after.scores[i],
            }
            for i, sample in enumerate(data.eval.sources[: len(after.predictions)])
        ]

    def predict(
        self, loaded: LoadedModel, encoder: EmbeddingEncoder, inputs: Sequence[str], recipe: Recipe
    ) -> list[EmbeddingPrediction]:
        """Return the vector of each text."""
        layout = self.layout(recipe, loaded)
        limit = encoder.spec.max_length
        samples = [
            plain_sample(encoder.cut(ids, limit), f"input {number}")
            for number, ids in enumerate(encoder.token_ids(inputs), start=1)
        ]
        found: dict[int, EmbeddingPrediction] = {}
        loaded.model.eval()
        with torch.inference_mode(), row_layout(loaded.model, layout):
            lengths = [len(sample) for sample in samples]
            for row in layout.micro_batches(lengths, recipe.train.micro_tokens):
                vectors = embed(loaded.model, Batch([samples[i] for i in row], layout))
                for i, vector in zip(row, vectors.numpy(), strict=True):
                    found[i] = EmbeddingPrediction(tuple(map(float, vector)))
        return [found[i] for i in range(len(samples))]


def plain_sample(ids: Sequence[int], origin: str) -> EncodedSample:
    """Return a text without targets."""
    tokens = np.asarray(ids, dtype=np.int32)
    return EncodedSample(tokens, np.zeros(len(tokens), dtype=np.bool_), origin)


def _joined(sides: Sequence[EncodedSample]) -> EncodedSample:
    return replace(sides[0], positive=sides[1], negative=sides[2] if len(sides) > 2 else None)


def with_positives(
    samples: Sequence[Sample], seed: int, side: str, notes: list[str]
) -> list[Sample]:
    """Return samples that all have a positive: of labelled texts, another text of the class.

    Args:
        samples: of one side of the split.
        seed: decides which text of the class.
        side: `training` or `evaluation`, for messages.
        notes: gets a line on the texts that are alone in their class and are left out.

    Raises:
        DataError: no sample is left.
    """
    groups: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        if sample.positive is None and sample.label is not None:
            groups[_class(sample)].append(sample)
    if not groups:
        return list(samples)
    alone = Tally()
    chooser = random.Random(seed)
    found: list[Sample] = []
    for sample in samples:
        alike = groups[_class(sample)] if sample.label is not None else []
        others = [other for other in alike if other.text != sample.text]
        if sample.positive is None and not others:
            alone.add(sample.origin)
            continue
        positive = sample.positive or chooser.choice(others).text
        found.append(replace(sample, positive=positive))
    if alone.count:
        notes.append(f"{side}: left out, no other text with the same label: {alone}")
    if not found:
        raise DataError(
            f"no {side} text has another with the same label (data.label), so there are no pairs"
        )
    return found


def nearest(outputs: Sequence[Any], count: int) -> list[tuple[int, int]]:
    """Return, of the first samples, the sample whose positive is nearest, and its own's rank."""
    positives = np.stack([sides[1] for sides in outputs])
    found: list[tuple[int, int]] = []
    for i, sides in enumerate(outputs[:count]):
        scores = positives @ sides[0]
        found.append((int(scores.argmax()), 1 + int((scores > scores[i]).sum())))
    return found


def _document(sources: Sequence[Sample], place: int) -> str:
    return sources[place].positive or ""


def _labels(samples: Iterable[Sample]) -> set[str]:
    return {_class(sample) for sample in samples if sample.label is not None}


def _class(sample: Sample) -> str:
    """Return the label as one text, of several labels all of them."""
    return ", ".join(labels_of(sample))
