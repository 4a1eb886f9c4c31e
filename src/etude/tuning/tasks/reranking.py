"""Reranking: a cross-encoder reads a query together with each document that a search has found.

A row has a query and a document that belongs with it, perhaps one that does not; or a text and a
label, and texts of one class belong together. Negatives are mined from the training rows. The
model is measured on what a first stage finds for held-out queries, beside the first stage's own
order. The head has one output, whose sigmoid is the score; what is saved opens in
sentence-transformers' `CrossEncoder`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch

from etude.core.errors import DataError
from etude.core.progress import Progress
from etude.tuning.artifacts import PreparedData
from etude.tuning.config.recipe import Recipe
from etude.tuning.config.sections.data import BM25
from etude.tuning.config.sections.named_files import NamedFile
from etude.tuning.data.batch import Batch, Layout
from etude.tuning.data.candidates import (
    Mined,
    Query,
    Ranker,
    bm25_ranker,
    held_out_queries,
    training_queries,
)
from etude.tuning.data.counts import Counts
from etude.tuning.data.encoded import EncodedSample, EncodedSet
from etude.tuning.data.labels import rows_named
from etude.tuning.data.samples import DataSplit, load_samples
from etude.tuning.data.text_pairs import pair_reader
from etude.tuning.fusion.layout import row_layout
from etude.tuning.metrics.metric import RANK, Metric
from etude.tuning.models.heads import Head
from etude.tuning.models.load import LoadedModel
from etude.tuning.objectives.base import Objective
from etude.tuning.objectives.classification import class_logits
from etude.tuning.objectives.listwise import (
    Listwise,
    first_stage_ranks,
    ranking_metrics,
    reranked_ranks,
)
from etude.tuning.runs.folder import RunFolder
from etude.tuning.tasks.base import Prediction, TaskRecord, omission_notes
from etude.tuning.tasks.baselines import beside_model
from etude.tuning.tasks.classifier_results import SHOWN
from etude.tuning.tasks.first_stage import embedding_ranker
from etude.tuning.tasks.held_out import whole_files, within_context
from etude.tuning.tasks.sentence_transformers import write_cross_encoder
from etude.tuning.tasks.text_classification import text_layout
from etude.tuning.tasks.text_encoder import TextEncoder, Tokens, encoded_text
from etude.tuning.training.evaluate import evaluate
from etude.tuning.training.measurement import Measurement


@dataclass(frozen=True)
class ScorePrediction:
    """How well a document belongs with a query."""

    score: float
    """Sigmoid of the model's output, 0 to 1; it compares documents of one query."""

    @property
    def text(self) -> str:
        """The score with three decimals."""
        return f"{self.score:.3f}"

    def as_json(self) -> dict[str, Any]:
        """Return `score`."""
        return {"score": self.score}


@dataclass(frozen=True)
class RankingPrediction:
    """The documents of a query, the best first."""

    ranking: tuple[tuple[int, float], ...]
    """Place of each document in the input, from 0, and its score."""
    documents: tuple[str, ...]

    @property
    def text(self) -> str:
        """The best document."""
        return self.documents[self.ranking[0][0]]

    def as_json(self) -> dict[str, Any]:
        """Return `ranking`: `index` in the input, `score` and `document`, the best first."""
        return {
            "ranking": [
                {"index": place, "score": score, "document": self.documents[place]}
                for place, score in self.ranking
            ]
        }


class RerankingEncoder(TextEncoder):
    """Encoder of queries, each with several documents.

    Args:
        tokenizer: the model's.
        spec: the data section; `max_length` and `too_long` are used, for a query with a document.
        head: the model's.
    """

    def __init__(self, tokenizer: Any, spec: Any, head: Head) -> None:
        super().__init__(tokenizer, spec, (), head)

    def encode_queries(self, queries: Sequence[Query], progress: Progress) -> EncodedSet:
        """Encode queries with their documents.

        A relevant document that is too long for `data.too_long` drops its query; others only
        themselves.

        Raises:
            DataError: a pair is too long and `data.too_long` is `error`; or all are dropped.
        """
        counts = Counts()
        kept: list[EncodedSample] = []
        sources: list[Any] = []
        for query in queries:
            text = query.sample.text or ""
            documents = (*query.relevant, *query.others)
            sides: list[EncodedSample | None] = []
            for document, tokens in zip(
                documents, self.tokens([text] * len(documents), documents), strict=True
            ):
                pair = replace(query.sample, positive=None, negative=None, pair=document)
                fitted = self._kept(tokens, pair, counts)
                sides.append(None if fitted is None else encoded_text(fitted, pair.origin))
            progress.advance()
            count = len(query.relevant)
            others = [side for side in sides[count:] if side is not None]
            relevant = [side for side in sides[:count] if side is not None]
            if len(relevant) < count or not (others or any(query.ranks)):
                continue
            first, *rest = relevant
            kept.append(replace(first, label=query.ranks, candidates=(*rest, *others)))
            sources.append(replace(query.sample, positive=query.relevant[0]))
            counts.add([len(side) for side in kept[-1].sides], 1, None)
        if not kept:
            raise DataError("every query was dropped: its documents are over data.max_length")
        return EncodedSet(kept, sources, counts.stats())


class Reranking:
    """Task of scoring documents for a query."""

    name = "reranking"
    sample_score = RANK

    def read(self, recipe: Recipe) -> DataSplit:
        """Read queries with their documents, or texts with labels.

        Raises:
            DataError: as `load_samples`.
        """
        split = load_samples(recipe.data, recipe.train.seed, pair_reader)
        if not split.eval:
            raise DataError(
                "there are no evaluation samples: name an evaluation file (data.eval), "
                "or hold out a share of the data (data.eval_fraction)"
            )
        return split

    def head(self, split: DataSplit, recipe: Recipe) -> Head:
        """Return a new head with one output."""
        del split
        return self.expected_head(recipe)

    def expected_head(self, recipe: Recipe) -> Head:
        """Return a new head with one output."""
        return Head("sequence-classification", seed=recipe.train.seed, problem="regression")

    def saved_head(self, record: TaskRecord) -> Head:
        """Return the saved head."""
        del record
        return Head("sequence-classification", problem="regression")

    def encoder(self, loaded: LoadedModel, recipe: Recipe) -> RerankingEncoder:
        """Return an encoder within the model's context."""
        return RerankingEncoder(loaded.tokenizer, within_context(loaded, recipe.data), loaded.head)

    def encode(
        self, split: DataSplit, loaded: LoadedModel, recipe: Recipe, progress: Progress
    ) -> PreparedData:
        """Mine negatives and candidates, and encode each query with its documents."""
        notes = list(split.notes)
        spec, rank = recipe.data, _ranker(recipe, progress)
        encoder = self.encoder(loaded, recipe)
        if encoder.spec.max_length != spec.max_length:
            notes.append(
                f"data.max_length {spec.max_length} exceeds the model's context: using "
                f"{encoder.spec.max_length}"
            )
        train = training_queries(
            split.train, rank, spec.negatives, spec.hard_negatives, recipe.train.seed
        )
        held_out = held_out_queries(split.eval, rank, spec.candidates)
        notes += _mining_notes(train, held_out, recipe)
        progress.start("Tokenising", len(train.queries) + len(held_out.queries), "queries")
        trained = encoder.encode_queries(train.queries, progress)
        measured = encoder.encode_queries(held_out.queries, progress)
        progress.finish()
        notes += omission_notes(trained, measured, "queries and documents truncated on the right")
        facts: dict[str, int | float | str] = {
            "negatives a query": round(_negatives(trained) / len(trained.samples), 1)
        }
        return PreparedData(trained, measured, encoder, notes, facts)

    def read_evaluation(
        self,
        files: Sequence[NamedFile],
        loaded: LoadedModel,
        recipe: Recipe,
        progress: Progress,
    ) -> PreparedData:
        """Read every row of files with the run's columns; its documents are searched."""
        spec = whole_files(recipe.data, files)
        split = load_samples(spec, recipe.train.seed, pair_reader)
        found = held_out_queries(split.train, _ranker(recipe, progress), spec.candidates)
        encoder = self.encoder(loaded, recipe)
        encoded = encoder.encode_queries(found.queries, progress)
        return PreparedData(encoded, encoded, encoder, list(split.notes))

    def record(self, loaded: LoadedModel, encoder: RerankingEncoder, recipe: Recipe) -> TaskRecord:
        """Return how scores are made."""
        del loaded, recipe
        options = {"activation": "sigmoid", "max_length": encoder.spec.max_length}
        return TaskRecord(self.name, options=options)

    def finish(self, folder: Path, loaded: LoadedModel, recipe: Recipe) -> None:
        """Write what sentence-transformers needs to open the folder as a `CrossEncoder`."""
        write_cross_encoder(folder, loaded, within_context(loaded, recipe.data).max_length)

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
        """Return the listwise loss, and the scores of the first stage to compare with."""
        del loaded, folder, progress
        return _objective(recipe, data)

    def evaluation_objective(
        self, recipe: Recipe, data: PreparedData, folder: RunFolder, *, adapted: bool
    ) -> Objective:
        """Return the listwise loss, and the scores of the first stage to compare with."""
        del folder, adapted
        return _objective(recipe, data)

    def metrics(self, objective: Objective) -> list[Metric]:
        """Return the ranking metrics."""
        return list(objective.metrics)

    def measure(
        self,
        loaded: LoadedModel,
        data: PreparedData,
        recipe: Recipe,
        objective: Objective,
        progress: Progress,
    ) -> Measurement:
        """Measure the loss and how high each held-out query's documents are ranked."""
        evaluation = evaluate(
            loaded.model,
            objective,
            data.eval.samples,
            recipe.train.micro_tokens,
            progress,
            layout=self.layout(recipe, loaded),
        )
        found = reranked_ranks(data.eval.samples, evaluation.outputs)
        best = [int(ranks[0]) for ranks in found]
        shown = [f"rank {rank}" if rank <= recipe.data.candidates else "missed" for rank in best]
        details: dict[str, Any] = {
            "retrieval": {"ranks": best, "candidates": recipe.data.candidates}
        }
        if known := cast("Listwise", objective).baselines:
            details["baselines"] = beside_model(known, evaluation.metrics, objective.metrics)
        return Measurement(
            evaluation.loss,
            evaluation.metrics,
            shown[:SHOWN],
            [100.0 / rank if rank <= recipe.data.candidates else 0.0 for rank in best[:SHOWN]],
            details,
        )

    def sample_records(
        self, data: PreparedData, before: Measurement, after: Measurement
    ) -> list[dict[str, Any]]:
        """Return query, document, and the rank of it before and after."""
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
        self,
        loaded: LoadedModel,
        encoder: RerankingEncoder,
        inputs: Sequence[tuple[str, str | Sequence[str]]],
        recipe: Recipe,
    ) -> list[Prediction]:
        """Return the score of each query and document; of a query and several, their order.

        Raises:
            DataError: an input is a text alone.
        """
        for place, one in enumerate(inputs, start=1):
            if isinstance(one, str) or len(one) != 2:
                raise DataError(
                    f"input {place} must be a query and a document, or a query and its documents"
                )
        layout = self.layout(recipe, loaded)
        listed = [(q, [d] if isinstance(d, str) else list(d)) for q, d in inputs]
        queries = [query for query, documents in listed for _ in documents]
        documents = [document for _, several in listed for document in several]
        tokens: list[Tokens] = encoder.tokens(queries, documents) if queries else []
        samples = [
            encoded_text(encoder.fitted(one, query, document), f"document {number}")
            for number, (one, query, document) in enumerate(
                zip(tokens, queries, documents, strict=True), start=1
            )
        ]
        scores = torch.zeros(len(samples), dtype=torch.float64)
        loaded.model.eval()
        with torch.inference_mode(), row_layout(loaded.model, layout):
            lengths = [len(sample) for sample in samples]
            for row in layout.micro_batches(lengths, recipe.train.micro_tokens):
                logits = class_logits(loaded.model, Batch([samples[i] for i in row], layout))
                scores[row] = logits[:, 0].double().sigmoid().cpu()
        found: list[Prediction] = []
        first = 0
        for (_, several), (_, given) in zip(listed, inputs, strict=True):
            own = [float(score) for score in scores[first : first + len(several)]]
            first += len(several)
            if isinstance(given, str):
                found.append(ScorePrediction(own[0]))
                continue
            order = sorted(range(len(own)), key=lambda place: -own[place])
            ranking = tuple((place, own[place]) for place in order)
            found.append(RankingPrediction(ranking, tuple(several)))
        return found


def _ranker(recipe: Recipe, progress: Progress) -> Ranker:
    """Return the first stage that `data.first_stage` names."""
    if recipe.data.first_stage == BM25:
        return bm25_ranker
    return partial(embedding_ranker, recipe, progress)


def _first_stage_title(recipe: Recipe) -> str:
    name = recipe.data.first_stage
    return "BM25" if name == BM25 else f"first stage ({name})"


def _objective(recipe: Recipe, data: PreparedData) -> Listwise:
    ranks = first_stage_ranks(data.eval.samples)
    found = sum(int(one[0]) <= recipe.data.candidates for one in ranks)
    note = (
        f"The model orders the {recipe.data.candidates:,} documents that the first stage finds, "
        f"among which a right one is for {found:,} of {len(ranks):,} queries."
    )
    rows = [{"name": _first_stage_title(recipe), "metrics": ranking_metrics(ranks)}]
    return Listwise({"rows": rows, "note": note})


def _negatives(train: EncodedSet) -> int:
    return sum(len(sample.candidates) for sample in train.samples)


def _mining_notes(train: Mined, held_out: Mined, recipe: Recipe) -> list[str]:
    """Return what was drawn from where."""
    stage = _first_stage_title(recipe)
    given = f"{train.given:,} of the rows, " if train.given else ""
    notes = [
        f"negatives of {len(train.queries):,} training queries, from {train.documents:,} training "
        f"documents: {given}{train.hard:,} hard ({stage}), {train.random:,} random "
        "(data.negatives, data.hard_negatives)",
        f"{len(held_out.queries):,} held-out queries, each with the first "
        f"{recipe.data.candidates:,} of {held_out.documents:,} held-out documents by {stage} "
        "(data.candidates)",
    ]
    for side, mined in (("training", train), ("evaluation", held_out)):
        if mined.alone:
            notes.append(
                f"{side}: left out, no other text with the same label: {rows_named(mined.alone)}"
            )
    return notes
