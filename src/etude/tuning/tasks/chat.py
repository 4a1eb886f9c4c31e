"""Chat: conversations, prompts and answers, preferences.

The loss covers the answers. Answers are generated to held-out prompts and compared with those of
the data by the metrics in `eval.metrics`. Plain text is read as well, each row at most
`data.max_length` tokens; `language-modeling` is the task for documents.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from etude.core.progress import Progress
from etude.tuning.artifacts import PreparedData
from etude.tuning.config.recipe import Recipe
from etude.tuning.config.sections.data import DataSpec
from etude.tuning.config.sections.eval import EvalSpec
from etude.tuning.config.sections.named_files import NamedFile
from etude.tuning.data.batch import Layout
from etude.tuning.data.encode import Encoder
from etude.tuning.data.encoded import EncodedSet
from etude.tuning.data.references import for_training
from etude.tuning.data.rendering import through_last_answer
from etude.tuning.data.samples import DataSplit, load_samples
from etude.tuning.data.schema import Message, Sample
from etude.tuning.data.sources.docstrings import ask_for_summary
from etude.tuning.data.token_cache import encode_cached
from etude.tuning.fusion.packing_probe import exact_layout
from etude.tuning.metrics.generation import TEXT_METRICS
from etude.tuning.metrics.metric import ROUGE_L, Metric
from etude.tuning.metrics.rouge import rouge_l
from etude.tuning.models.heads import CAUSAL_LM, Head
from etude.tuning.models.load import LoadedModel
from etude.tuning.objectives.base import Objective
from etude.tuning.objectives.reference import CachedReference, reference_log_probs
from etude.tuning.objectives.select import make_objective, reference_samples
from etude.tuning.runs.folder import RunFolder
from etude.tuning.tasks.answers import (
    PREDICTED_TOKENS,
    Question,
    answer_questions,
    answer_tokens,
    asked_questions,
    with_columns,
)
from etude.tuning.tasks.base import Answer, Prediction, TaskRecord, omission_notes
from etude.tuning.tasks.held_out import (
    context_notes,
    evaluate_held_out,
    require_held_out,
    whole_files,
    within_context,
)
from etude.tuning.training.evaluate import generate_answers
from etude.tuning.training.measurement import Measurement

REFERENCE = "reference.json"
"""Cached reference log-probabilities in the run's folder, for full fine-tuning."""


class Chat:
    """Task of answering: in a conversation, or one prompt."""

    name = "chat"
    sample_score = ROUGE_L

    def read(self, recipe: Recipe) -> DataSplit:
        """Read conversations, prompts and answers, texts or preferences."""
        split = load_samples(recipe.data, recipe.train.seed, with_columns(recipe.eval))
        require_held_out(split)
        train, notes = for_training(split.train, recipe.data, recipe.train.seed)
        return DataSplit(train, split.eval, [*split.notes, *notes])

    def head(self, split: DataSplit, recipe: Recipe) -> Head:
        """Return the checkpoint's own head."""
        del split, recipe
        return CAUSAL_LM

    def expected_head(self, recipe: Recipe) -> Head:
        """Return the checkpoint's own."""
        del recipe
        return CAUSAL_LM

    def saved_head(self, record: TaskRecord) -> Head:
        """Return the checkpoint's own head."""
        del record
        return CAUSAL_LM

    def encoder(self, loaded: LoadedModel, recipe: Recipe) -> Encoder:
        """Return the encoder of the model's tokenizer and chat template."""
        return Encoder(loaded.tokenizer, recipe.data)

    def encode(
        self, split: DataSplit, loaded: LoadedModel, recipe: Recipe, progress: Progress
    ) -> PreparedData:
        """Encode samples, each at most as long as the model's context."""
        notes = list(split.notes)
        spec = within_context(loaded, recipe.data)
        notes += context_notes(recipe.data, spec.max_length)
        encoder = Encoder(loaded.tokenizer, spec)
        progress.start("Tokenising", len(split.train) + len(split.eval), "samples")
        train = encode_cached(encoder, split.train, progress, notes.append)
        held_out = encoder.encode_all(split.eval, progress)
        progress.finish()
        notes += omission_notes(train, held_out, "prompts truncated on the left")
        notes += _length_notes(encoder, train, held_out, recipe)
        system, several = common_system(split.train)
        if several:
            notes.append(
                "training conversations have different system messages, or only some have one; "
                "`etude chat` and `predict` use none unless data.system or --system names it"
            )
        return PreparedData(train, held_out, encoder, notes, system=system)

    def read_evaluation(
        self,
        files: Sequence[NamedFile],
        loaded: LoadedModel,
        recipe: Recipe,
        progress: Progress,
    ) -> PreparedData:
        """Read files with the run's columns, if the run's data were files."""
        columns = recipe.data
        if columns.kind == "docstrings":
            columns = DataSpec(system=columns.system)
        spec = whole_files(columns, files)
        split = load_samples(spec, recipe.train.seed, with_columns(recipe.eval))
        encoder = self.encoder(loaded, recipe)
        encoded: EncodedSet = encoder.encode_all(split.train, progress)
        return PreparedData(encoded, encoded, encoder, split.notes)

    def record(self, loaded: LoadedModel, encoder: Encoder, recipe: Recipe) -> TaskRecord:
        """Return the length of answers, where the recipe leaves it to the data."""
        del loaded
        if recipe.eval.max_new_tokens is not None or encoder.answer_tokens is None:
            return TaskRecord(self.name)
        return TaskRecord(self.name, options={"max_new_tokens": encoder.answer_tokens})

    def finish(self, folder: Path, loaded: LoadedModel, recipe: Recipe) -> None:
        """Write nothing more."""
        del folder, loaded, recipe

    def layout(self, recipe: Recipe, loaded: LoadedModel) -> Layout:
        """Return packed rows, unless the recipe disables packing or the model cannot have them."""
        # Another file is evaluated with the default maximum.
        longest = max(recipe.data.max_length, DataSpec(train="-").max_length)
        return exact_layout(loaded.model, packing=recipe.data.packing, longest=longest)

    def objective(
        self,
        recipe: Recipe,
        loaded: LoadedModel,
        data: PreparedData,
        folder: RunFolder,
        progress: Progress,
    ) -> Objective:
        """Return the recipe's objective, or the default one for the data.

        For full fine-tuning, reference log-probabilities are computed first and cached in the run's
        folder.
        """
        train, held_out = data.train.samples, data.eval.samples
        seed = recipe.train.seed
        if recipe.adapter.kind != "full":
            return make_objective(recipe.objective, train, held_out, seed)
        known: dict[str, float] = folder.read_json(REFERENCE) or {}
        reference = CachedReference(known)
        objective = make_objective(recipe.objective, train, held_out, seed, reference)
        wanted = reference_samples(objective, [*train, *held_out])
        if wanted and not known:
            known = reference_log_probs(
                loaded.model,
                wanted,
                recipe.train.micro_tokens,
                progress,
                layout=self.layout(recipe, loaded),
            )
            folder.write_json(REFERENCE, known)
            reference = CachedReference(known)
            objective = make_objective(recipe.objective, train, held_out, seed, reference)
        return objective

    def evaluation_objective(
        self, recipe: Recipe, data: PreparedData, folder: RunFolder, *, adapted: bool
    ) -> Objective:
        """Return the run's objective for other samples."""
        reference = None if adapted else CachedReference(folder.read_json(REFERENCE) or {})
        seed = recipe.train.seed
        return make_objective(recipe.objective, [], data.eval.samples, seed, reference)

    def metrics(self, objective: Objective) -> list[Metric]:
        """Return the metrics of the objective, and those of generated answers."""
        return [*objective.metrics, *(one.metric for one in TEXT_METRICS.values())]

    def measure(
        self,
        loaded: LoadedModel,
        data: PreparedData,
        recipe: Recipe,
        objective: Objective,
        progress: Progress,
    ) -> Measurement:
        """Measure the loss, and generate answers."""
        evaluation = evaluate_held_out(self, loaded, data, recipe, objective, progress)
        asked = asked_questions(data.eval.sources, data.encoder, recipe.eval)
        limit = _answer_limit(recipe, data.encoder)
        answered = answer_questions(loaded, data.encoder, asked, recipe.eval, limit, progress)
        details: dict[str, Any] = {"loss_parts": evaluation.parts}
        if answered.details:
            details["generation"] = answered.details
        metrics = {**evaluation.metrics, **answered.metrics}
        return Measurement(evaluation.loss, metrics, answered.answers, answered.scores, details)

    def sample_records(
        self, data: PreparedData, before: Measurement, after: Measurement
    ) -> list[dict[str, Any]]:
        """Return prompt, reference, and base and tuned answers of each generated sample."""
        made: dict[str, Any] = after.details.get("generation", {})
        spec = EvalSpec(generate=len(after.predictions), turns=made.get("turns", "last"))
        asked = asked_questions(data.eval.sources, data.encoder, spec)
        return [
            {
                "origin": question.sample.origin,
                "prompt": _question(question.sample),
                "reference": _nearest(question, after.predictions[i]),
                "before": before.predictions[i],
                "after": after.predictions[i],
                "score_before": before.scores[i],
                "score_after": after.scores[i],
            }
            for i, question in enumerate(asked[: len(before.predictions)])
        ]

    def predict(
        self, loaded: LoadedModel, encoder: Encoder, inputs: Sequence[str], recipe: Recipe
    ) -> Sequence[Prediction]:
        """Answer each input as a user's message."""
        samples = [
            as_trained((Message("user", text),), encoder.spec, f"input {number}")
            for number, text in enumerate(inputs, start=1)
        ]
        answers = generate_answers(
            loaded.model,
            loaded.tokenizer,
            [encoder.prompt_ids(sample) for sample in samples],
            encoder.end_id,
            max_new_tokens=_answer_limit(recipe, encoder),
            batch_samples=recipe.eval.batch_samples,
        )
        return [Answer(answer) for answer in answers]


def common_system(samples: Iterable[Sample]) -> tuple[str | None, bool]:
    """Return the system message of all conversations, None if it is not one and the same.

    Also returns whether there are several, or conversations with and without one.
    """
    first: str | None = None
    for number, sample in enumerate(sample for sample in samples if sample.messages):
        turn = sample.messages[0]
        system = turn.content if turn.role == "system" else None
        if number == 0:
            first = system
        elif system != first:
            return None, True
    return first, False


def as_trained(turns: tuple[Message, ...], spec: DataSpec, origin: str) -> Sample:
    """Return a sample whose answer is to come, put to the model as in training.

    Args:
        turns: the conversation so far; the last message is the user's.
        spec: of the run; gives the system message, and how functions are asked about.
        origin: names the sample in errors.
    """
    if spec.kind == "docstrings" and turns:
        turns = (*turns[:-1], Message("user", ask_for_summary(turns[-1].content)))
    if spec.system is not None and (not turns or turns[0].role != "system"):
        turns = (Message("system", spec.system), *turns)
    return Sample((*turns, Message("assistant", "")), None, origin)


def _answer_limit(recipe: Recipe, encoder: Encoder) -> int:
    """Return the maximum length of an answer: the recipe's, or what the training data say."""
    return recipe.eval.max_new_tokens or encoder.answer_tokens or PREDICTED_TOKENS


def _length_notes(
    encoder: Encoder, train: EncodedSet, held_out: EncodedSet, recipe: Recipe
) -> list[str]:
    """Set the length of answers from those of the training data; return notes on the task."""
    notes: list[str] = []
    asks = any(sample.messages for sample in held_out.sources)
    if asks and recipe.eval.max_new_tokens is None:
        encoder.answer_tokens = answer_tokens(train.samples)
        notes.append(
            f"answers are generated up to {encoder.answer_tokens:,} tokens, as 99 of 100 training "
            "answers have at most (eval.max_new_tokens)"
        )
    if not asks:
        notes.append(
            "the data are plain text, of which each row is one sample; task: language-modeling "
            "also takes documents longer than data.max_length, and measures perplexity"
        )
    return notes


def _nearest(question: Question, answer: str) -> str:
    """Return the reference that the score is based on: the nearest one by ROUGE-L."""
    return max(question.references, key=lambda one: rouge_l(one, answer).fmeasure)


def _question(sample: Sample) -> str:
    """Return the turn before the last trained answer."""
    turns = through_last_answer(sample)
    return turns[-2].content if len(turns) > 1 else ""
