"""Causal language modelling: conversations, prompts and answers, plain text, preferences.

The loss covers the answers (for plain text, all tokens). The metrics are the loss and ROUGE-L of
generated answers to the first held-out prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from etude.core.errors import DataError
from etude.core.progress import Progress
from etude.tuning.artifacts import Measurement, PreparedData
from etude.tuning.config.recipe import Recipe
from etude.tuning.config.sections.data import DataSpec
from etude.tuning.data.batch import Layout
from etude.tuning.data.encode import Encoder
from etude.tuning.data.encoded import EncodedSet
from etude.tuning.data.samples import DataSplit, load_samples
from etude.tuning.data.schema import Message, Sample
from etude.tuning.data.sources.docstrings import ask_for_summary
from etude.tuning.data.token_cache import encode_cached
from etude.tuning.fusion.packing_probe import causal_layout
from etude.tuning.metrics.metric import ROUGE_L, Metric
from etude.tuning.metrics.rouge import rouge_l
from etude.tuning.models.heads import CAUSAL_LM, Head
from etude.tuning.models.load import LoadedModel
from etude.tuning.objectives.base import Objective
from etude.tuning.objectives.reference import CachedReference, reference_log_probs
from etude.tuning.objectives.select import make_objective, reference_samples
from etude.tuning.runs.folder import RunFolder
from etude.tuning.tasks.base import Prediction, TaskRecord, omission_notes
from etude.tuning.training.evaluate import evaluate, generate_answers

REFERENCE = "reference.json"
"""Cached reference log-probabilities in the run's folder, for full fine-tuning."""

_COLUMNS = ("prompt", "completion", "text", "chosen", "rejected", "label", "tools", "format")


class CausalLM:
    """Task of generating text."""

    name = "causal-lm"
    sample_score = ROUGE_L

    def read(self, recipe: Recipe) -> DataSplit:
        """Read conversations, prompts and answers, texts or preferences."""
        split = load_samples(recipe.data, recipe.train.seed)
        if not split.eval:
            raise DataError(
                "there are no evaluation samples: name an evaluation file (data.eval), "
                "or hold out a share of the data (data.eval_fraction)"
            )
        return split

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
        spec = recipe.data
        context = getattr(loaded.model.config, "max_position_embeddings", None)
        if context is not None and spec.max_length > context:
            notes.append(
                f"data.max_length {spec.max_length} exceeds the model's context: using {context}"
            )
            spec = spec.model_copy(update={"max_length": context})
        encoder = Encoder(loaded.tokenizer, spec)
        progress.start("Tokenising", len(split.train) + len(split.eval), "samples")
        train = encode_cached(encoder, split.train, progress, notes.append)
        held_out = encoder.encode_all(split.eval, progress)
        progress.finish()
        notes += omission_notes(train, held_out, "prompts truncated on the left")
        return PreparedData(train, held_out, encoder, notes)

    def read_evaluation(
        self, file: Path, loaded: LoadedModel, recipe: Recipe, progress: Progress
    ) -> PreparedData:
        """Read a file with the run's columns, if the run's data were files."""
        columns = _COLUMNS if recipe.data.kind != "docstrings" else ()
        spec = DataSpec(
            train=str(file),
            eval_fraction=0.0,
            system=recipe.data.system,
            **{name: getattr(recipe.data, name) for name in columns},
        )
        split = load_samples(spec, recipe.train.seed)
        encoder = self.encoder(loaded, recipe)
        encoded: EncodedSet = encoder.encode_all(split.train, progress)
        return PreparedData(encoded, encoded, encoder, split.notes)

    def layout(self, recipe: Recipe, loaded: LoadedModel) -> Layout:
        """Return packed rows, unless the recipe disables packing or the model cannot have them."""
        # Another file is evaluated with the default maximum.
        longest = max(recipe.data.max_length, DataSpec(train="-").max_length)
        return causal_layout(loaded.model, packing=recipe.data.packing, longest=longest)

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
        """Return the metrics of the objective, and ROUGE-L."""
        return [*objective.metrics, ROUGE_L]

    def measure(
        self,
        loaded: LoadedModel,
        data: PreparedData,
        recipe: Recipe,
        objective: Objective,
        progress: Progress,
    ) -> Measurement:
        """Measure the loss and generate answers."""
        spec = recipe.eval
        layout = self.layout(recipe, loaded)
        evaluation = evaluate(
            loaded.model,
            objective,
            data.eval.samples,
            recipe.train.micro_tokens,
            progress,
            layout=layout,
        )
        questions = _questions(data, spec.generate)
        answers = generate_answers(
            loaded.model,
            loaded.tokenizer,
            [data.encoder.prompt_ids(sample) for sample in questions],
            data.encoder.end_id,
            max_new_tokens=spec.max_new_tokens,
            batch_samples=spec.batch_samples,
            progress=progress,
        )
        references = [data.encoder.reference(sample) for sample in questions]
        scores = [
            100.0 * rouge_l(reference, answer).fmeasure
            for reference, answer in zip(references, answers, strict=True)
        ]
        metrics = dict(evaluation.metrics)
        if scores:
            metrics[ROUGE_L.name] = sum(scores) / len(scores)
        return Measurement(evaluation.loss, metrics, answers, scores)

    def sample_records(
        self, data: PreparedData, before: Measurement, after: Measurement
    ) -> list[dict[str, Any]]:
        """Return prompt, reference, and base and tuned answers of each generated sample."""
        return [
            {
                "origin": sample.origin,
                "prompt": sample.messages[-2].content if len(sample.messages) > 1 else "",
                "reference": data.encoder.reference(sample),
                "before": before.predictions[i],
                "after": after.predictions[i],
                "score_before": before.scores[i],
                "score_after": after.scores[i],
            }
            for i, sample in enumerate(_questions(data, len(after.predictions)))
        ]

    def predict(
        self, loaded: LoadedModel, encoder: Encoder, inputs: Sequence[str], recipe: Recipe
    ) -> list[Prediction]:
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
            max_new_tokens=recipe.eval.max_new_tokens,
            batch_samples=recipe.eval.batch_samples,
        )
        return [Prediction(answer) for answer in answers]


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


def _questions(data: PreparedData, count: int) -> list[Sample]:
    """Return the first `count` held-out samples that ask for an answer."""
    return [sample for sample in data.eval.sources if sample.messages][:count]
