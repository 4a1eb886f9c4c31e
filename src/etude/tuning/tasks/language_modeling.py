"""Language modelling: the text of documents, to adapt a model to a domain.

Documents are cut into rows with no token dropped and none trained twice, see `document_rows`, and
held out whole. The figures are the loss in nats per token, perplexity per token (its exponential)
and bits per byte of the text, which do not depend on the tokenizer:

    bits per byte = Σ nats of all tokens, end tokens included / (ln 2 · bytes of UTF-8)

The same figures of text outside the domain (`eval.general`) say what adapting costs there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, cast

from etude.core.progress import Progress
from etude.tuning.artifacts import PreparedData
from etude.tuning.config.recipe import Recipe
from etude.tuning.config.sections.data import DataSpec
from etude.tuning.config.sections.named_files import NamedFile
from etude.tuning.data.batch import Layout
from etude.tuning.data.document_rows import DocumentEncoder, by_document, mixed
from etude.tuning.data.document_split import DocumentSplit, read_all, read_named, read_split
from etude.tuning.data.documents import is_text
from etude.tuning.data.encoded import EncodedSample, EncodedSet
from etude.tuning.data.formats.registry import format_name
from etude.tuning.data.schema import DataSplit, Sample
from etude.tuning.data.sources.registry import Row
from etude.tuning.fusion.packing_probe import exact_layout
from etude.tuning.metrics.metric import BITS_PER_BYTE, PERPLEXITY, Metric
from etude.tuning.models.heads import CAUSAL_LM, Head
from etude.tuning.models.load import LoadedModel
from etude.tuning.objectives.base import Objective
from etude.tuning.objectives.language_modeling import LanguageModelingLoss
from etude.tuning.runs.folder import RunFolder
from etude.tuning.tasks.base import Answer, Prediction, TaskRecord
from etude.tuning.tasks.held_out import context_notes, within_context
from etude.tuning.training.evaluate import evaluate, generate_answers
from etude.tuning.training.measurement import Measurement

CONTINUED = 8
"""Maximum number of documents whose beginning is continued: they are shown, not scored."""

BEGINNING = 64
"""Tokens of a document that are given, at most half of it."""

CONTINUATION = 64
"""Tokens that are generated where the recipe says nothing."""

GENERAL = "general_"
"""Prefix of the figures of text outside the domain."""

_OUTSIDE = (
    Metric(
        GENERAL + "loss",
        "loss outside the domain",
        "loss",
        higher_is_better=False,
        note=LanguageModelingLoss.unit,
    ),
    Metric(
        GENERAL + PERPLEXITY.name, "perplexity outside the domain", "loss", higher_is_better=False
    ),
    Metric(
        GENERAL + BITS_PER_BYTE.name,
        "bits per byte outside the domain",
        "loss",
        higher_is_better=False,
    ),
)


class LanguageModeling:
    """Task of modelling the text of documents."""

    name = "language-modeling"
    sample_score = Metric(
        "perplexity", "perplexity", "loss", higher_is_better=False, note="of the document"
    )

    def read(self, recipe: Recipe) -> DocumentSplit:
        """Read documents, and hold out whole ones.

        Of a single document, the end is held out.

        Raises:
            DataError: nothing can be read, or a side of the split is empty.
        """
        return read_split(recipe.data, recipe.eval.general, recipe.train.seed)

    def head(self, split: DataSplit, recipe: Recipe) -> Head:
        """Return the checkpoint's own head."""
        del split, recipe
        return CAUSAL_LM

    def expected_head(self, recipe: Recipe) -> Head:
        """Return the checkpoint's own head."""
        del recipe
        return CAUSAL_LM

    def saved_head(self, record: TaskRecord) -> Head:
        """Return the checkpoint's own head."""
        del record
        return CAUSAL_LM

    def encoder(self, loaded: LoadedModel, recipe: Recipe) -> DocumentEncoder:
        """Return the encoder of the model's tokenizer, rows no longer than the model's context."""
        return DocumentEncoder(loaded.tokenizer, within_context(loaded, recipe.data))

    def encode(
        self, split: DataSplit, loaded: LoadedModel, recipe: Recipe, progress: Progress
    ) -> PreparedData:
        """Cut documents into rows, and mix in general ones as the recipe says."""
        documents = cast("DocumentSplit", split)
        notes = list(split.notes)
        encoder = self.encoder(loaded, recipe)
        notes += context_notes(recipe.data, encoder.spec.max_length)
        total = sum(map(len, (split.train, split.eval, documents.general, documents.replay)))
        progress.start("Tokenising", total, "documents")
        train = encoder.encode_documents(split.train, progress)
        held_out = _evaluated(encoder, split.eval, recipe, progress)
        general = _evaluated(encoder, documents.general, recipe, progress)
        replay = encoder.encode_documents(documents.replay, progress)
        progress.finish()
        facts: dict[str, int | float | str] = {
            "training documents": len(split.train),
            "evaluation documents": len(split.eval),
        }
        if documents.replay:
            domain = train.stats
            train = mixed(train, replay, recipe.data.replay.share, recipe.train.seed)
            drawn = train.stats.samples - domain.samples
            facts["rows of general text"] = drawn
            share = 1 - domain.trained_tokens / train.stats.trained_tokens
            notes.append(
                f"replay: {drawn:,} rows of general text are mixed in, {share:.1%} of the "
                f"training tokens, from {recipe.data.replay.file} (data.replay.share "
                f"{recipe.data.replay.share:g})"
                + (": all there are" if drawn == replay.stats.samples else "")
            )
        if documents.general:
            facts["documents outside the domain"] = len(documents.general)
        else:
            notes.append(
                "what the model loses outside the domain is not measured: name general text by "
                "eval.general"
            )
        return PreparedData(
            train, held_out, encoder, notes, facts, general if documents.general else None
        )

    def read_evaluation(
        self,
        files: Sequence[NamedFile],
        loaded: LoadedModel,
        recipe: Recipe,
        progress: Progress,
    ) -> PreparedData:
        """Read every document of files or folders."""
        documents = read_all(files, recipe.data)
        general = read_named(recipe.eval.general, recipe.data)
        encoder = self.encoder(loaded, recipe)
        held_out = _evaluated(encoder, documents.samples, recipe, progress)
        outside = _evaluated(encoder, general.samples, recipe, progress)
        return PreparedData(
            held_out,
            held_out,
            encoder,
            [*documents.notes, *general.notes],
            general=outside if general.samples else None,
        )

    def record(self, loaded: LoadedModel, encoder: DocumentEncoder, recipe: Recipe) -> TaskRecord:
        """Return the name of the task."""
        del loaded, encoder, recipe
        return TaskRecord(self.name)

    def finish(self, folder: Path, loaded: LoadedModel, recipe: Recipe) -> None:
        """Write nothing more."""
        del folder, loaded, recipe

    def layout(self, recipe: Recipe, loaded: LoadedModel) -> Layout:
        """Return packed rows, unless the recipe disables packing."""
        return exact_layout(
            loaded.model, packing=recipe.data.packing, longest=recipe.data.max_length
        )

    def objective(
        self,
        recipe: Recipe,
        loaded: LoadedModel,
        data: PreparedData,
        folder: RunFolder,
        progress: Progress,
    ) -> Objective:
        """Return cross-entropy over every token."""
        del recipe, loaded, data, folder, progress
        return LanguageModelingLoss()

    def evaluation_objective(
        self, recipe: Recipe, data: PreparedData, folder: RunFolder, *, adapted: bool
    ) -> Objective:
        """Return cross-entropy over every token."""
        del recipe, data, folder, adapted
        return LanguageModelingLoss()

    def metrics(self, objective: Objective) -> list[Metric]:
        """Return perplexity and bits per byte, inside and outside the domain."""
        del objective
        return [PERPLEXITY, BITS_PER_BYTE, *_OUTSIDE]

    def measure(
        self,
        loaded: LoadedModel,
        data: PreparedData,
        recipe: Recipe,
        objective: Objective,
        progress: Progress,
    ) -> Measurement:
        """Measure the text of held-out documents, inside and outside the domain."""
        layout = self.layout(recipe, loaded)
        micro_tokens = recipe.train.micro_tokens

        def loss_of(rows: Sequence[EncodedSample], shown: Progress | None = None) -> float:
            return evaluate(loaded.model, objective, rows, micro_tokens, shown, layout=layout).loss

        loss = loss_of(data.eval.samples, progress)
        metrics = _figures(loss, data.eval)
        size = {"inside": _size(data.eval)}
        if data.general is not None:
            outside = loss_of(data.general.samples, progress)
            figures = {"loss": outside, **_figures(outside, data.general)}
            metrics |= {GENERAL + name: value for name, value in figures.items()}
            size["outside"] = _size(data.general)
        encoder: DocumentEncoder = data.encoder
        details = {
            "documents": {**size, "stride": recipe.eval.stride, "window": encoder.spec.max_length}
        }
        shown = _shown(data.eval, recipe)
        prompts = [_beginning(encoder, sample)[0] for sample, _ in shown]
        continued = generate_answers(
            loaded.model,
            loaded.tokenizer,
            prompts,
            encoder.document_end,
            max_new_tokens=recipe.eval.max_new_tokens or CONTINUATION,
            batch_samples=recipe.eval.batch_samples,
            progress=progress,
        )
        scores = [_perplexity(loss_of(rows)) for _, rows in shown]
        return Measurement(loss, metrics, continued, scores, details)

    def sample_records(
        self, data: PreparedData, before: Measurement, after: Measurement
    ) -> list[dict[str, Any]]:
        """Return the beginning of each shown document, how it goes on, and both continuations."""
        encoder: DocumentEncoder = data.encoder
        records: list[dict[str, Any]] = []
        for i, (sample, _) in enumerate(islice(by_document(data.eval), len(after.predictions))):
            prompt, rest = _beginning(encoder, sample)
            records.append(
                {
                    "origin": sample.origin,
                    "prompt": _decoded(encoder, prompt[len(encoder.separator) :]),
                    "reference": _decoded(encoder, rest[:CONTINUATION]).strip(),
                    "before": before.predictions[i],
                    "after": after.predictions[i],
                    "score_before": before.scores[i],
                    "score_after": after.scores[i],
                }
            )
        return records

    def predict(
        self, loaded: LoadedModel, encoder: DocumentEncoder, inputs: Sequence[str], recipe: Recipe
    ) -> Sequence[Prediction]:
        """Continue each input as the beginning of a document."""
        answers = generate_answers(
            loaded.model,
            loaded.tokenizer,
            [[*encoder.separator, *ids] for ids in encoder.text_ids(inputs)],
            encoder.document_end,
            max_new_tokens=recipe.eval.max_new_tokens or CONTINUATION,
            batch_samples=recipe.eval.batch_samples,
        )
        return [Answer(answer) for answer in answers]


def suits(spec: DataSpec, first: Row | None) -> bool:
    """Return whether data are plain text, which this task is for.

    Args:
        spec: names the data and their format.
        first: the first row of a file of rows; None for a folder or a text file.
    """
    documents = spec.kind == "files" and any(is_text(file.first) for file in spec.train_files)
    if first is None or documents:
        return documents
    return format_name(spec, first) == "text"


def _evaluated(
    encoder: DocumentEncoder, documents: Sequence[Sample], recipe: Recipe, progress: Progress
) -> EncodedSet:
    stride = recipe.eval.stride
    if stride is not None:
        stride = min(stride, encoder.spec.max_length - 1)
    return encoder.encode_documents(documents, progress, stride=stride, keep_sources=True)


def _shown(encoded: EncodedSet, recipe: Recipe) -> list[tuple[Sample, list[EncodedSample]]]:
    """Return the documents that are continued, with their rows."""
    return list(islice(by_document(encoded), min(recipe.eval.generate, CONTINUED)))


def _beginning(encoder: DocumentEncoder, document: Sample) -> tuple[list[int], list[int]]:
    """Return the tokens that are given of a document, with the separator, and those after them."""
    (ids,) = encoder.text_ids([document.text or ""])
    place = min(BEGINNING, max(1, len(ids) // 2))
    return [*encoder.separator, *ids[:place]], ids[place:]


def _decoded(encoder: DocumentEncoder, ids: Sequence[int]) -> str:
    return str(encoder.tokenizer.decode(ids))


def _figures(loss: float, encoded: EncodedSet) -> dict[str, float]:
    """Return perplexity and bits per byte for a mean loss in nats per token."""
    nats = loss * encoded.stats.trained_tokens
    return {
        PERPLEXITY.name: _perplexity(loss),
        BITS_PER_BYTE.name: nats / (math.log(2) * _bytes(encoded)),
    }


def _perplexity(loss: float) -> float:
    """Return e to the loss, at most a number that can be written."""
    return math.exp(min(loss, 700.0))


def _bytes(encoded: EncodedSet) -> int:
    return sum(len((sample.text or "").encode()) for sample, _ in by_document(encoded))


def _size(encoded: EncodedSet) -> dict[str, int]:
    return {
        "documents": sum(1 for _ in by_document(encoded)),
        "tokens": encoded.stats.trained_tokens,
        "bytes": _bytes(encoded),
    }
