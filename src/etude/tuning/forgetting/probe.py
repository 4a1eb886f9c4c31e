"""The probe: questions of all subjects, plain prose and instructions, asked of a model.

    questions     which letter is most probable after `Answer:`       right or wrong
    prose         mean cross-entropy of a passage                     nats a token
    instructions  the greedy answer, checked by a program             followed or not

A base and its tuned version are asked the same items, so that they can be compared item by item:
the items differ far more among each other than a model differs before and after fine-tuning.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from etude.core.errors import RunError
from etude.core.progress import Progress
from etude.tuning.config.sections.data import DataSpec
from etude.tuning.data.batch import Batch
from etude.tuning.data.encode import Encoder
from etude.tuning.data.encoded import EncodedSample
from etude.tuning.data.schema import Message
from etude.tuning.forgetting.instructions import Instruction, instructions
from etude.tuning.forgetting.passages import passages, read_text, topics
from etude.tuning.forgetting.questions import LETTERS, questions_file, read_questions
from etude.tuning.fusion.layout import row_layout
from etude.tuning.fusion.packing_probe import exact_layout
from etude.tuning.models.foreign_code import foreign_code
from etude.tuning.models.heads import CAUSAL_LM
from etude.tuning.models.load import LoadedModel
from etude.tuning.objectives.logprobs import answer_log_probs, choice_log_probs
from etude.tuning.tasks.chat import as_trained
from etude.tuning.training.evaluate import generate_texts

NEW_TOKENS = 96
"""Of an answer to an instruction; a longer one is truncated and checked as it is."""

ROW_TOKENS = 2048
"""Of a forward pass."""

ANSWERS_AT_ONCE = 20


@dataclass(frozen=True)
class Scores:
    """What a model made of the probe, item by item."""

    right: list[float] = field(default_factory=list[float])
    """Of each question: 1 where the right letter is the most probable, else 0."""
    nats: list[float] = field(default_factory=list[float])
    """Of each passage: mean cross-entropy, in nats a token."""
    followed: list[float] = field(default_factory=list[float])
    """Of each instruction: 1 or 0."""
    answers: list[str] = field(default_factory=list[str])
    """To the instructions."""


class Probe:
    """The items, encoded by a model's tokenizer.

    Args:
        loaded: a causal language model.
        text: a file of prose to take passages from; None: Python's language reference.

    Raises:
        RunError: the model does not generate text.
        DataError: the text cannot be used.
    """

    def __init__(self, loaded: LoadedModel, text: Path | None = None) -> None:
        if loaded.head.kind != CAUSAL_LM.kind:
            raise RunError(
                "forgetting is measured on models that generate text; this run's does not"
            )
        self.loaded, self.prose = loaded, text.name if text is not None else "Python's reference"
        tokenizer: Any = loaded.tokenizer
        limit: int | None = getattr(loaded.model.config, "max_position_embeddings", None)
        self.context = limit or sys.maxsize
        self.notes: list[str] = []
        self.questions, self.letters, self.right = self._questions(tokenizer)
        texts = read_text(text) if text is not None else topics()
        self.passages = [
            _sample(ids, 1, f"{self.prose}, passage {number}")
            for number, ids in enumerate(passages(texts, tokenizer), start=1)
        ]
        self.instructions: Sequence[Instruction] = instructions()
        # Without the system message of a run: a base's scores then hold for every run of it.
        encoder = Encoder(tokenizer, DataSpec(train="-"))
        self.end_id = encoder.end_id
        self.prompts = [
            encoder.prompt_ids(
                as_trained((Message("user", one.prompt),), encoder.spec, "an instruction")
            )
            for one in self.instructions
        ]

    @property
    def key(self) -> str:
        """Hash of all that the scores of a base depend on besides its weights."""
        items = [
            [sample.input_ids.tolist() for sample in (*self.questions, *self.passages)],
            self.letters,
            self.right,
            self.prompts,
            [[one.check, dict(one.options)] for one in self.instructions],
            NEW_TOKENS,
        ]
        return hashlib.sha256(json.dumps(items).encode()).hexdigest()[:16]

    def measure(self, progress: Progress) -> Scores:
        """Return the scores of the model as it is now: with or without its adapter."""
        model: Any = self.loaded.model
        model.eval()
        right = [
            float(int(logs.argmax()) == answer)
            for logs, answer in zip(
                self._through(self.questions, "questions", progress, self.letters),
                self.right,
                strict=True,
            )
        ]
        nats = [
            -float(logs) / sample.trained_tokens
            for logs, sample in zip(
                self._through(self.passages, "passages", progress), self.passages, strict=True
            )
        ]
        answers = [
            made.text
            for made in generate_texts(
                model,
                self.loaded.tokenizer,
                self.prompts,
                self.end_id,
                max_new_tokens=NEW_TOKENS,
                batch_samples=ANSWERS_AT_ONCE,
                progress=progress,
            )
        ]
        followed = [
            float(one.followed(answer))
            for one, answer in zip(self.instructions, answers, strict=True)
        ]
        return Scores(right, nats, followed, answers)

    def _through(
        self,
        samples: Sequence[EncodedSample],
        what: str,
        progress: Progress,
        choices: Sequence[int] | None = None,
    ) -> list[torch.Tensor]:
        """Return the log-probabilities of each sample's trained tokens, or of the choices there."""
        if not samples:
            return []
        model: Any = self.loaded.model
        longest = max(map(len, samples))
        layout = exact_layout(model, packing=True, longest=longest)
        found: dict[int, torch.Tensor] = {}
        progress.start("Reading", len(samples), what)
        with torch.no_grad(), row_layout(model, layout), foreign_code(model):
            for row in layout.micro_batches([len(sample) for sample in samples], ROW_TOKENS):
                batch = Batch([samples[index] for index in row], layout)
                if choices is None:
                    values = answer_log_probs(model, batch)
                else:
                    values = choice_log_probs(model, batch, choices)
                found.update(zip(row, values.cpu(), strict=True))
                progress.advance(len(row))
        progress.finish()
        return [found[index] for index in range(len(samples))]

    def _questions(self, tokenizer: Any) -> tuple[list[EncodedSample], list[int], list[int]]:
        """Return the questions, the tokens of the letters, and which letter is right."""
        file = questions_file()
        if file is None:
            self.notes.append(
                "knowledge was not asked for: MMLU's development questions come with lm-eval, "
                "pip install 'etude[eval]'"
            )
            return [], [], []
        found = read_questions(file)
        asked: list[list[int]] = []
        letters: list[int] = []
        for question in found:
            ways: list[list[int]] = [
                tokenizer(f"{question.prompt} {letter}", verbose=False)["input_ids"]
                for letter in LETTERS
            ]
            if ways[0][-1] == tokenizer.eos_token_id:  # appended by some tokenizers
                ways = [ids[:-1] for ids in ways]
            last = [ids[-1] for ids in ways]
            if any(ids[:-1] != ways[0][:-1] for ids in ways) or len(set(last)) < len(LETTERS):
                self.notes.append(
                    "knowledge was not asked for: this tokenizer has no token of its own for a "
                    "letter"
                )
                return [], [], []
            letters = last
            asked.append(ways[0])
        fitting = [
            (ids, question)
            for ids, question in zip(asked, found, strict=True)
            if len(ids) <= self.context
        ]
        if left := len(found) - len(fitting):
            self.notes.append(
                f"questions longer than the model's context ({self.context} tokens) are left out: "
                f"{left}"
            )
        samples = [_sample(ids, len(ids) - 1, question.subject) for ids, question in fitting]
        return samples, letters, [question.right for _, question in fitting]


def _sample(ids: Sequence[int], first: int, origin: str) -> EncodedSample:
    """Return tokens of which those from `first` on are predicted."""
    trained = np.zeros(len(ids), np.bool_)
    trained[first:] = True
    return EncodedSample(np.asarray(ids, np.int32), trained, origin)
