"""Checks that need the tokenizer: templates, start and end tokens, length.

Text that a chat template would write (`<|im_start|>`, `[INST]`, ...) means a row was rendered
before, by this model's template or by another's. Where it is this one's, the text becomes control
tokens inside a turn; where it is another's, it becomes letters that no program writes in use.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from etude.core.errors import DataError
from etude.tuning.config.sections.data import DataSpec
from etude.tuning.data.check.findings import Entry, Finding, excerpt, found
from etude.tuning.data.encode import Encoder
from etude.tuning.data.encoded import EncodedSample
from etude.tuning.data.rendering import Refusal

MARKERS = {
    "ChatML": ("<|im_start|>", "<|im_end|>"),
    "Llama 2": ("[INST]", "[/INST]", "<<SYS>>"),
    "Llama 3": ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|begin_of_text|>"),
    "Gemma": ("<start_of_turn>", "<end_of_turn>"),
    "Phi": ("<|user|>", "<|assistant|>", "<|end|>"),
    "DeepSeek": ("<｜User｜>", "<｜Assistant｜>"),
    "Command": ("<|START_OF_TURN_TOKEN|>", "<|CHATBOT_TOKEN|>"),
    "Alpaca": ("### Instruction:", "### Response:"),
    "Vicuna": ("USER: ", "ASSISTANT: "),
}
"""What the common chat templates write around turns."""

_SPECIAL = re.compile(r"<[|｜][^|｜<>\s]{2,40}[|｜]>|<(?:start|end)_of_turn>")
_MARKER = re.compile(r"<[|｜][^|｜<>\s]{2,40}[|｜]>")
_NAMED = 12
"""Markers that an advice names."""

_BATCH = 256


class Tokens:
    """Checks by one model's tokenizer.

    Args:
        tokenizer: of the model to be tuned.
        spec: how samples are read and how long they may be.
    """

    def __init__(self, tokenizer: Any, spec: DataSpec) -> None:
        self._tokenizer = tokenizer
        self._spec = spec
        self._encoder = Encoder(tokenizer, spec)
        self._waiting: list[Entry] = []
        self._conversations = 0
        self._lost = self._tokens = 0
        self._template: str = tokenizer.chat_template or ""
        own = {name for name, marks in MARKERS.items() if any(m in self._template for m in marks)}
        self._own = tuple(mark for name in sorted(own) for mark in MARKERS[name])
        self._foreign = {name: marks for name, marks in MARKERS.items() if name not in own}
        self.cut = Finding("too-long", "warning", "", "")
        self.doubled = Finding(
            "doubled-start",
            "error",
            "samples that begin with two start tokens",
            "the tokenizer adds one itself; remove it from the data",
        )
        self.unended = Finding(
            "missing-end",
            "error",
            "already rendered texts whose last answer has no end token",
            "the model learns not to stop; add it, or provide the conversation as messages",
        )
        self.foreign = Finding(
            "wrong-template",
            "error",
            "rows rendered by the chat template of another model",
            "its markers are plain text to this tokenizer; provide messages instead, which "
            "the right template renders",
        )
        self.own = Finding(
            "rendered-twice",
            "warning",
            "turns that contain markers of this model's own chat template",
            "they become control tokens inside the turn; remove them",
        )
        self.unknown = Finding(
            "unknown-tokens",
            "warning",
            "markers that this tokenizer splits into several tokens",
            "",
        )
        self._split: dict[str, bool] = {}
        self._unknown: dict[str, None] = {}
        self.refused = Finding(
            "not-trainable",
            "error",
            "samples that cannot be trained on",
            "a run would stop at the first of them",
        )

    def see(self, entry: Entry) -> None:
        """Look for marks at once, and encode in batches."""
        for text in entry.texts:
            self._look(entry, text)
        self._conversations += entry.sample.text is None
        self._waiting.append(entry)
        if len(self._waiting) >= _BATCH:
            self._encode()

    def _look(self, entry: Entry, text: str) -> None:
        plain = entry.sample.text is not None
        if any(mark in text for mark in self._own) and not plain:
            mark = next(mark for mark in self._own if mark in text)
            self.own.add(entry.origin, f"{entry.origin}: {excerpt(text, text.index(mark))}")
        for name, marks in self._foreign.items():
            # One that is a token of this vocabulary, added perhaps, is what it is meant to be.
            hits = [mark for mark in marks if mark in text and self._splits(mark)]
            # One of them may be what a text is about; two are a template at work.
            if len(hits) >= 2:
                told = f"{entry.origin} ({name}): {excerpt(text, text.index(hits[0]))}"
                self.foreign.add(entry.origin, told)
                return
        for mark in dict.fromkeys(_MARKER.findall(text)):
            if self._splits(mark):
                told = f"{entry.origin}: {excerpt(text, text.index(mark))}"
                self.unknown.add(entry.origin, told)
                self._unknown[mark] = None
        rendered = plain and sum(text.count(mark) for mark in self._own) >= 2
        end = self._tokenizer.convert_ids_to_tokens(self._encoder.end_id)
        if rendered and not text.rstrip().endswith(end):
            self.unended.add(entry.origin, f"{entry.origin}: … {text.rstrip()[-40:]!r}")

    def _splits(self, mark: str) -> bool:
        """Return whether the tokenizer makes more than one token of a marker."""
        if mark not in self._split:
            ids: list[int] = self._tokenizer(mark, add_special_tokens=False)["input_ids"]
            self._split[mark] = len(ids) > 1
        return self._split[mark]

    def _encode(self) -> None:
        waiting, self._waiting = self._waiting, []
        try:
            outcomes = self._encoder.outcomes_uncut([entry.sample for entry in waiting])
        except DataError:
            # One of them stops the batch; which, and what of the others, is seen one by one.
            outcomes = [self._outcome(entry) for entry in waiting]
        for entry, outcome in zip(waiting, outcomes, strict=True):
            if isinstance(outcome, Refusal):
                if outcome.rewrites:
                    continue  # learnt as one sample an answer
                told = f"{entry.origin}: {outcome.message}"
                (self.doubled if "occurs twice" in outcome.message else self.refused).add(
                    entry.origin, told
                )
            elif outcome.longest > self._spec.max_length:
                self._too_long(entry, outcome)

    def _outcome(self, entry: Entry) -> EncodedSample | Refusal:
        try:
            return self._encoder.outcomes_uncut([entry.sample])[0]
        except DataError as error:
            return Refusal(str(error).removeprefix(f"{entry.origin}: "))

    def _too_long(self, entry: Entry, encoded: EncodedSample) -> None:
        over = encoded.longest - self._spec.max_length
        self._lost += over
        told = f"{entry.origin}: {encoded.longest:,} tokens, {over:,} too many"
        answer = max(int(side.trained.sum()) for side in encoded.sides)
        if answer >= self._spec.max_length:
            told += f", its answers alone {answer:,}"
        self.cut.add(entry.origin, told)

    def findings(self) -> Iterable[Finding]:
        """Return what the tokenizer tells."""
        if self._waiting:
            self._encode()
        limit = self._spec.max_length
        action = {
            "drop": ("warning", "are dropped"),
            "cut_prompt": ("note", "have their prompt truncated on the left"),
            "error": ("error", "stop the run"),
        }[self._spec.too_long]
        self.cut.severity = action[0]  # pyright: ignore[reportAttributeAccessIssue] - one of three
        self.cut.title = f"samples longer than data.max_length, {limit:,} tokens"
        self.cut.advice = (
            f"they {action[1]} (data.too_long: {self._spec.too_long}), {self._lost:,} tokens too "
            "many in all; raise data.max_length, or shorten them"
        )
        seen = list(self._unknown)
        listed = ", ".join(f'"{mark}"' for mark in seen[:_NAMED])
        more = f" and {len(seen) - _NAMED} more" if len(seen) > _NAMED else ""
        self.unknown.advice = (
            f"make them tokens, whose embeddings are then trained: model.add_tokens: [{listed}]"
            f"{more}; or leave them as text"
        )
        yield from found(self.refused, self.doubled, self.unended, self.foreign, self.own, self.cut)
        yield from found(self.unknown)
        yield from self._of_the_template()

    def _of_the_template(self) -> Iterable[Finding]:
        if self._conversations and not self._template:
            yield Finding(
                "no-template",
                "warning",
                "conversations, but this model has no chat template",
                "turns are joined without markers; use a chat model, or single-turn data",
                rows=[f"{self._conversations:,} conversations"],
            )
        split = [
            mark
            for mark in sorted(set(_SPECIAL.findall(self._template)))
            if len(self._tokenizer(mark, add_special_tokens=False)["input_ids"]) != 1
        ]
        if split:
            yield Finding(
                "split-marks",
                "error",
                "markers of the chat template that are several tokens",
                "template and tokenizer do not match; use both from one model",
                rows=split,
            )
