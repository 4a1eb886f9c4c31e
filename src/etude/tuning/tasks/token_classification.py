"""Token classification: entities of a sentence, by a tag for each of its words.

A row has words and tags in any of the usual schemes, or a text with the characters of its entities.
The head gives each word's first piece a tag; the best valid sequence of tags is decoded, and read
as entities. Scheme, types and the way texts are split into words are saved with the head.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch

from etude.core.errors import AdapterError, DataError
from etude.core.progress import Progress
from etude.tuning.artifacts import PreparedData
from etude.tuning.config.recipe import Recipe
from etude.tuning.config.sections.named_files import NamedFile
from etude.tuning.data.batch import Batch, Layout
from etude.tuning.data.encoded import EncodedSample
from etude.tuning.data.samples import DataSplit, load_samples
from etude.tuning.data.schema import Sample
from etude.tuning.data.tagging.decoding import TagDecoder
from etude.tuning.data.tagging.encoding import WordCounts, WordEncoder
from etude.tuning.data.tagging.reading import RAW_SPLITTING, SpanRepairs, tagged_reader
from etude.tuning.data.tagging.schemes import entities, labels_of, parse
from etude.tuning.data.tagging.survey import (
    broken_notes,
    data_scheme,
    entity_types,
    refuse_unknown,
    survey,
    trained_scheme,
    word_notes,
)
from etude.tuning.data.tagging.words import Splitting, split_words, splitting_of
from etude.tuning.fusion.layout import row_layout
from etude.tuning.metrics.entities import Entity
from etude.tuning.metrics.metric import ENTITIES_CORRECT, Metric
from etude.tuning.models.heads import Head
from etude.tuning.models.load import LoadedModel
from etude.tuning.objectives.base import Objective
from etude.tuning.objectives.token_classification import (
    TokenClassification,
    by_sample,
    stitched,
    word_log_probs,
)
from etude.tuning.runs.folder import RunFolder
from etude.tuning.tasks.base import PredictedSpan, SpansPrediction, TaskRecord
from etude.tuning.tasks.classifier_results import SHOWN
from etude.tuning.tasks.entity_details import entity_details
from etude.tuning.tasks.held_out import (
    context_notes,
    evaluate_held_out,
    require_held_out,
    whole_files,
)
from etude.tuning.tasks.text_classification import text_layout
from etude.tuning.training.measurement import Measurement

SPLITTING = "word_splitting"
"""Key of the head's options."""


class TokenEncoder(WordEncoder):
    """A word encoder that knows how raw texts are split, and how tags are decoded."""

    def __init__(self, loaded: LoadedModel, recipe: Recipe) -> None:
        limit = _limit(loaded, recipe)
        super().__init__(loaded.tokenizer, recipe.data, limit, loaded.head.labels)
        named = loaded.head.options.get(SPLITTING, RAW_SPLITTING)
        self.splitting: Splitting = cast("Splitting", named)
        self.decoder = TagDecoder(self.labels, constrained=recipe.eval.tag_decoding == "viterbi")


class TokenTagging:
    """Task of finding entities by a tag for each word."""

    name = "token-classification"
    sample_score = ENTITIES_CORRECT

    def read(self, recipe: Recipe) -> DataSplit:
        """Read words and tags.

        Raises:
            DataError: as `load_samples`; also if no training row has an entity, a type occurs in
                the evaluation data only, or tags break their scheme and `data.broken_tags` is
                `error`.
        """
        repairs = SpanRepairs()
        split = load_samples(
            recipe.data, recipe.train.seed, partial(tagged_reader, repairs=repairs)
        )
        require_held_out(split)
        notes = [*survey(split, recipe.data), *repairs.notes()]
        return DataSplit(split.train, split.eval, [*split.notes, *notes])

    def head(self, split: DataSplit, recipe: Recipe) -> Head:
        """Return a new head with the tags of every type in the training data."""
        scheme = data_scheme(split.train)
        labels = labels_of(entity_types(split.train, scheme), trained_scheme(recipe.data, scheme))
        words = (word for sample in split.train for word in sample.words)
        options = {SPLITTING: splitting_of(words)}
        return Head("token-classification", labels, recipe.train.seed, options=options)

    def expected_head(self, recipe: Recipe) -> Head:
        """Return a head with two outputs: how many there are, the data say."""
        return Head("token-classification", seed=recipe.train.seed)

    def saved_head(self, record: TaskRecord) -> Head:
        """Return the saved head, with its tags in order.

        Raises:
            AdapterError: the record has no tags.
        """
        if len(record.labels) < 2 or "O" not in record.labels:
            raise AdapterError(
                "the names of this tagger's tags are missing (task.json), so its outputs cannot "
                "be interpreted; restore the file"
            )
        return Head("token-classification", record.labels, options=record.options)

    def encoder(self, loaded: LoadedModel, recipe: Recipe) -> TokenEncoder:
        """Return an encoder with the tags of the loaded head."""
        return TokenEncoder(loaded, recipe)

    def encode(
        self, split: DataSplit, loaded: LoadedModel, recipe: Recipe, progress: Progress
    ) -> PreparedData:
        """Encode sentences, in windows of at most the model's context."""
        notes = list(split.notes)
        encoder = self.encoder(loaded, recipe)
        notes += context_notes(recipe.data, encoder.max_length)
        scheme = data_scheme(split.train)
        counts, held_counts = WordCounts(), WordCounts()
        progress.start("Tokenising", len(split.train) + len(split.eval), "sentences")
        train = encoder.encode_all(split.train, scheme, counts, progress)
        held_out = encoder.encode_all(
            split.eval, data_scheme(split.eval, scheme), held_counts, progress
        )
        progress.finish()
        notes += word_notes("training", counts, encoder.room)
        notes += word_notes("evaluation", held_counts, encoder.room)
        counted = Counter(e.type for s in split.train for e in entities(s.tags, scheme))
        facts: dict[str, int | float | str] = {
            "training sentences": counts.sentences,
            "training words": counts.words,
            **{f"entities, {name}": counted[name] for name in sorted(counted)},
        }
        if counts.windowed.count:
            facts["sentences in several windows"] = counts.windowed.count
        return PreparedData(train, held_out, encoder, notes, facts)

    def read_evaluation(
        self,
        files: Sequence[NamedFile],
        loaded: LoadedModel,
        recipe: Recipe,
        progress: Progress,
    ) -> PreparedData:
        """Read every row of files with the run's columns."""
        spec = whole_files(recipe.data, files)
        repairs, counts = SpanRepairs(), WordCounts()
        split = load_samples(spec, recipe.train.seed, partial(tagged_reader, repairs=repairs))
        encoder = self.encoder(loaded, recipe)
        scheme = data_scheme(split.train, encoder.scheme)
        types = sorted({parse(label)[1] for label in encoder.labels if label != "O"})
        refuse_unknown(split.train, scheme, types)
        notes = [*split.notes, *repairs.notes()]
        notes += broken_notes(split.train, scheme, "evaluation", recipe.data)
        encoded = encoder.encode_all(split.train, scheme, counts, progress)
        notes += word_notes("evaluation", counts, encoder.room)
        return PreparedData(encoded, encoded, encoder, notes)

    def record(self, loaded: LoadedModel, encoder: TokenEncoder, recipe: Recipe) -> TaskRecord:
        """Return the tags and how texts are split into words."""
        del recipe
        options = {"scheme": encoder.scheme, SPLITTING: encoder.splitting}
        return TaskRecord(self.name, loaded.head.labels, options)

    def finish(self, folder: Path, loaded: LoadedModel, recipe: Recipe) -> None:
        """Write nothing more."""
        del folder, loaded, recipe

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
        """Return cross-entropy over the tags."""
        del recipe, loaded, folder, progress
        return TokenClassification(data.encoder.decoder)

    def evaluation_objective(
        self, recipe: Recipe, data: PreparedData, folder: RunFolder, *, adapted: bool
    ) -> Objective:
        """Return cross-entropy over the tags."""
        del recipe, folder, adapted
        return TokenClassification(data.encoder.decoder)

    def metrics(self, objective: Objective) -> list[Metric]:
        """Return entity F1, precision and recall, and word accuracy last."""
        return list(objective.metrics)

    def measure(
        self,
        loaded: LoadedModel,
        data: PreparedData,
        recipe: Recipe,
        objective: Objective,
        progress: Progress,
    ) -> Measurement:
        """Measure the loss and the entities of whole sentences."""
        samples = data.eval.samples
        evaluation = evaluate_held_out(self, loaded, data, recipe, objective, progress)
        decoder: TagDecoder = data.encoder.decoder
        true: list[list[Entity]] = []
        found: list[list[Entity]] = []
        for tags, log_probs in stitched(samples, evaluation.outputs):
            true.append(decoder.entities(tags))
            found.append(decoder.entities(decoder.tags(log_probs)))
        sentences = _sentences(data)
        shown = list(zip(sentences, true, found, strict=True))[:SHOWN]
        return Measurement(
            evaluation.loss,
            evaluation.metrics,
            [marked(sample.words, predicted) for sample, _, predicted in shown],
            [100.0 * (set(wanted) == set(predicted)) for _, wanted, predicted in shown],
            {
                **entity_details(sentences, true, found),
                # True, found and both, of each sentence: for the standard error of entity F1.
                "entity_counts": [
                    (len(set(a)), len(set(b)), len(set(a) & set(b)))
                    for a, b in zip(true, found, strict=True)
                ],
            },
        )

    def sample_records(
        self, data: PreparedData, before: Measurement, after: Measurement
    ) -> list[dict[str, Any]]:
        """Return text, entities, and base and tuned ones of the first held-out sentences."""
        sentences = _sentences(data)[: len(after.predictions)]
        decoder: TagDecoder = data.encoder.decoder
        windows = [sample.words for sample in data.eval.samples]
        true: dict[int, list[int]] = {}
        for window in windows:
            assert window is not None
            true.setdefault(window.sentence, []).extend(int(tag) for tag in window.tags)
        return [
            {
                "origin": sample.origin,
                "prompt": sample.text or "",
                "reference": marked(sample.words, decoder.entities(true[i])),
                "before": before.predictions[i],
                "after": after.predictions[i],
                "score_before": before.scores[i],
                "score_after": after.scores[i],
            }
            for i, sample in enumerate(sentences)
        ]

    def predict(
        self,
        loaded: LoadedModel,
        encoder: TokenEncoder,
        inputs: Sequence[str | Sequence[str]],
        recipe: Recipe,
    ) -> list[SpansPrediction]:
        """Return the entities of each input, with their places and probabilities.

        Args:
            loaded: the model.
            encoder: from `self.encoder`.
            inputs: texts, or lists of words. A text is split as the training words were.
            recipe: of the run.

        Raises:
            DataError: a list of words is empty, or has an empty word.
        """
        layout = self.layout(recipe, loaded)
        texts, places = _places(inputs, encoder.splitting)
        words = [
            [text[start:end] for start, end in spans]
            for text, spans in zip(texts, places, strict=True)
        ]
        samples: list[EncodedSample] = []
        filled = [number for number, found in enumerate(words) if found]
        pieces = encoder.pieces([words[number] for number in filled]) if filled else []
        for number, tokens in zip(filled, pieces, strict=True):
            classes = [0] * len(words[number])
            origin = f"input {number + 1}"
            samples += encoder.samples(words[number], tokens, classes, origin, number)
        outputs: dict[int, Any] = {}
        loaded.model.eval()
        with torch.inference_mode(), row_layout(loaded.model, layout):
            lengths = [len(sample) for sample in samples]
            for row in layout.micro_batches(lengths, recipe.train.micro_tokens):
                batch = Batch([samples[i] for i in row], layout)
                found = by_sample(word_log_probs(loaded.model, batch), batch)
                outputs.update(zip(row, found, strict=True))
        results: list[tuple[PredictedSpan, ...]] = [()] * len(texts)
        whole = stitched(samples, [outputs[i] for i in range(len(samples))])
        for number, (_, log_probs) in zip(filled, whole, strict=True):
            results[number] = _spans(
                encoder.decoder, log_probs, texts[number], places[number], inputs[number]
            )
        return [SpansPrediction(spans, text) for spans, text in zip(results, texts, strict=True)]


def _places(
    inputs: Sequence[str | Sequence[str]], splitting: Splitting
) -> tuple[list[str], list[list[tuple[int, int]]]]:
    """Return the text of each input, and where its words are; words are joined by spaces."""
    texts: list[str] = []
    places: list[list[tuple[int, int]]] = []
    for number, given in enumerate(inputs, start=1):
        if isinstance(given, str):
            texts.append(given)
            places.append(split_words(given, splitting))
            continue
        spans: list[tuple[int, int]] = []
        start = 0
        for place, word in enumerate(given, start=1):
            if not word.strip():
                raise DataError(f"input {number}: word {place} is empty")
            spans.append((start, start + len(word)))
            start += len(word) + 1
        texts.append(" ".join(given))
        places.append(spans)
    return texts, places


def _spans(
    decoder: TagDecoder,
    log_probs: Any,
    text: str,
    places: Sequence[tuple[int, int]],
    given: str | Sequence[str],
) -> tuple[PredictedSpan, ...]:
    tags = decoder.tags(log_probs)
    found = decoder.entities(tags)
    shares = decoder.probabilities(log_probs, tags, found)
    spans: list[PredictedSpan] = []
    for entity, probability in zip(found, shares, strict=True):
        start, end = places[entity.start][0], places[entity.end - 1][1]
        words = None if isinstance(given, str) else (entity.start, entity.end)
        spans.append(PredictedSpan(start, end, entity.type, text[start:end], probability, words))
    return tuple(spans)


def _limit(loaded: LoadedModel, recipe: Recipe) -> int:
    """Return the tokens of a window: `data.max_length`, or the model's context if that is less."""
    context = getattr(loaded.model.config, "max_position_embeddings", None)
    tokenizer = getattr(loaded.tokenizer, "model_max_length", None)
    return min(n for n in (recipe.data.max_length, context, tokenizer) if n is not None)


def _sentences(data: PreparedData) -> list[Sample]:
    """Return the held-out sentences, each once."""
    found: dict[int, Sample] = {}
    for window, source in zip(data.eval.samples, data.eval.sources, strict=True):
        assert window.words is not None
        found.setdefault(window.words.sentence, source)
    return list(found.values())


def marked(words: Sequence[str], found: Iterable[Entity]) -> str:
    """Return the entities of a sentence as text: `Aspirin (Chemical), gastric ulcer (Disease)`."""
    return ", ".join(f"{' '.join(words[e.start : e.end])} ({e.type})" for e in found)
