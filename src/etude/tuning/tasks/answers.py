"""Generated answers to held-out prompts: how long they may be, and what they are worth."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from etude.core.errors import DataError
from etude.core.progress import Progress
from etude.tuning.config.sections.data import DataSpec
from etude.tuning.config.sections.eval import EvalSpec
from etude.tuning.data.encode import Encoder
from etude.tuning.data.encoded import EncodedSample
from etude.tuning.data.formats.registry import sample_reader
from etude.tuning.data.references import questions
from etude.tuning.data.samples import ReaderFactory
from etude.tuning.data.schema import Sample
from etude.tuning.data.sources.registry import Row
from etude.tuning.metrics.extractive import BASELINES, TITLES, BaselineName, sentences_of
from etude.tuning.metrics.generation import (
    TEXT_METRICS,
    GeneratedText,
    MetricName,
    MetricSettings,
    scored,
)
from etude.tuning.metrics.rouge import best_of, rouge_l
from etude.tuning.models.load import LoadedModel
from etude.tuning.training.evaluate import generate_texts

DEFAULT_METRICS: tuple[MetricName, ...] = ("rougeL",)

LONGEST_SHARE = 0.99
"""Share of the training answers that the default of `eval.max_new_tokens` covers."""

PREDICTED_TOKENS = 128
"""Length of an answer where neither the recipe nor training data say one: a base model's."""


def with_columns(spec: EvalSpec) -> ReaderFactory:
    """Return what reads rows by their format, and keeps the columns that the evaluation needs."""
    names = [name for name in (spec.source, spec.slots) if name is not None]

    def reader(data: DataSpec, first: Row) -> Callable[[Row], Sample]:
        read = sample_reader(data, first)

        def read_kept(row: Row) -> Sample:
            kept = {name: row.values[name] for name in names if name in row.values}
            return replace(read(row), columns=kept)

        return read_kept if names else read

    return reader


@dataclass(frozen=True)
class Question:
    """A prompt of the evaluation, and the answers of the data."""

    sample: Sample
    """The conversation up to the answer in question."""

    references: tuple[str, ...]
    """At least one."""


def asked_questions(samples: Sequence[Sample], encoder: Encoder, spec: EvalSpec) -> list[Question]:
    """Return the prompts to generate answers for, `eval.generate` at most."""
    found = questions(samples, spec.generate, every_turn=spec.turns == "all")
    return [
        Question(sample, references or (encoder.reference(sample),)) for sample, references in found
    ]


def answer_tokens(samples: Sequence[EncodedSample]) -> int | None:
    """Return the length that 99 of 100 training answers have at most, end token included.

    Of a conversation, its last answer counts; of a pair, the chosen one. None without samples.
    """
    lengths: list[int] = []
    for sample in samples:
        trained = np.flatnonzero(sample.trained)
        if len(trained):
            breaks = np.flatnonzero(np.diff(trained) > 1)
            lengths.append(len(trained) - (int(breaks[-1]) + 1 if len(breaks) else 0))
    if not lengths:
        return None
    return int(np.quantile(lengths, LONGEST_SHARE, method="higher"))


@dataclass(frozen=True)
class AnsweredQuestions:
    """What a model answered, and the figures of it."""

    answers: list[str]
    scores: list[float]
    """ROUGE-L of each answer, 0 to 100."""

    metrics: dict[str, float]
    details: dict[str, Any]
    """For the report: the limit, answers at it, lengths, baselines, validity of the metrics."""


def answer_questions(
    loaded: LoadedModel,
    encoder: Encoder,
    asked: Sequence[Question],
    spec: EvalSpec,
    limit: int,
    progress: Progress,
) -> AnsweredQuestions:
    """Generate an answer for each question and score it.

    Args:
        loaded: the model.
        encoder: renders the prompts.
        asked: from `asked_questions`.
        spec: the evaluation section of the recipe.
        limit: maximum length of an answer, in tokens.
        progress: reports each answer.

    Raises:
        DataError: a row lacks what a metric or a baseline needs.
    """
    names: Sequence[MetricName] = spec.metrics if spec.metrics is not None else DEFAULT_METRICS
    settings = MetricSettings(spec.answer_pattern, spec.slots)
    # Before anything is generated: a row that lacks its source must not cost the answers.
    copies = baseline_texts(asked, spec)
    made = generate_texts(
        loaded.model,
        loaded.tokenizer,
        [encoder.prompt_ids(question.sample) for question in asked],
        encoder.end_id,
        max_new_tokens=limit,
        batch_samples=spec.batch_samples,
        progress=progress,
    )
    answers = [one.text for one in made]
    scores = [
        100 * best_of(rouge_l, question.references, answer)
        for question, answer in zip(asked, answers, strict=True)
    ]
    details: dict[str, Any] = {}
    if asked:
        references = [len(ids) for ids in _reference_ids(loaded.tokenizer, asked)]
        details = {
            "limit": limit,
            "turns": spec.turns,
            "truncated": sum(not one.ended for one in made),
            "generated_tokens": [one.tokens for one in made],
            "reference_tokens": references,
            "references": sum(len(question.references) for question in asked),
            "baselines": {
                name: scored(_texts(asked, texts), names, settings)
                for name, texts in copies.items()
            },
            "metrics": [
                {**TEXT_METRICS[name].metric.as_json(), "validity": TEXT_METRICS[name].validity}
                for name in TEXT_METRICS
                if name in names
            ],
        }
    return AnsweredQuestions(
        answers, scores, scored(_texts(asked, answers), names, settings), details
    )


def baseline_texts(asked: Sequence[Question], spec: EvalSpec) -> Mapping[str, list[str]]:
    """Return the text of each extractive baseline for each question, by the baseline's title.

    Raises:
        DataError: a row has no column `eval.source`, or it holds no sentences.
    """
    if not spec.baselines or spec.source is None:
        return {}
    sources = [
        sentences_of(
            _column(question.sample, spec.source, "eval.source"),
            f"{question.sample.origin}: column {spec.source!r}",
        )
        for question in asked
    ]
    chosen: Sequence[BaselineName] = spec.baselines
    return {
        TITLES[name]: [
            BASELINES[name](sentences, question.references)
            for sentences, question in zip(sources, asked, strict=True)
        ]
        for name in chosen
    }


def _column(sample: Sample, name: str, key: str) -> Any:
    if name not in sample.columns:
        raise DataError(f"{sample.origin}: no column {name!r} ({key})")
    return sample.columns[name]


def _texts(asked: Sequence[Question], answers: Sequence[str]) -> list[GeneratedText]:
    return [
        GeneratedText(answer, one.references, one.sample.origin, one.sample.columns)
        for one, answer in zip(asked, answers, strict=True)
    ]


def _reference_ids(tokenizer: Any, asked: Sequence[Question]) -> list[list[int]]:
    texts = [question.references[0] for question in asked]
    return tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
