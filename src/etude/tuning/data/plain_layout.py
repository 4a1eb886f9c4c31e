"""Rendering without a chat template: a text, or a prompt and its answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

from etude.core.errors import DataError
from etude.tuning.data.rendering import (
    TEMPLATE_REFUSED,
    Refusal,
    Rendering,
    nothing_trained,
    through_last_answer,
)
from etude.tuning.data.schema import Sample
from etude.tuning.data.template_probe import with_thought

TAKE_TOOLS_OUT = "use a model whose template supports them, or data without tools (data.tools)"


class PlainLayout:
    """Rendering without a template: text, or prompt and answer, with the end token appended.

    Raises:
        DataError: at construction, if the tokenizer has no end token.
    """

    appends_end = True

    def __init__(self, tokenizer: Any) -> None:
        if tokenizer.eos_token_id is None:
            raise DataError(
                "the tokenizer has no end token (eos_token): a model tuned with it would never stop"
            )
        self.end_id = cast("int", tokenizer.eos_token_id)
        self.start_ids = _start_ids(tokenizer)
        self._end_text = cast("str", tokenizer.eos_token)

    def prompt(self, sample: Sample) -> str:
        """Return the generation prompt for the answer of `sample`.

        Raises:
            DataError: there is more before the answer than one prompt.
        """
        if (refusal := self._too_much(sample)) is not None:
            raise DataError(f"{sample.origin}: {refusal.message}")
        turns = through_last_answer(sample)[:-1]
        return turns[0].content if turns else ""

    def folds(self, sample: Sample) -> bool:
        """Whether the system message becomes part of the user's first turn: never."""
        del sample
        return False

    def _too_much(self, sample: Sample) -> Refusal | None:
        """Return the refusal of a conversation that is more than a prompt and an answer."""
        turns = through_last_answer(sample)[:-1]
        if len(turns) > 1 or (turns and turns[0].role != "user"):
            return Refusal(
                "this model has no chat template, so it supports a prompt and a completion only; a "
                "system message or several turns need a chat model",
                TEMPLATE_REFUSED,
            )
        return None

    def render(self, samples: Sequence[Sample]) -> list[Rendering | Refusal]:
        """Render samples; a plain text is an answer as a whole."""
        return [self._layout(sample) for sample in samples]

    def _layout(self, sample: Sample) -> Rendering | Refusal:
        if sample.text is not None:
            return Rendering(sample.text, [(0, len(sample.text))])
        turns = through_last_answer(sample)
        if not turns:
            return nothing_trained("the conversation has no answer that is trained")
        last = turns[-1]
        if sample.tools or last.tool_calls:
            return Refusal(f"this model has no chat template, and so no tools; {TAKE_TOOLS_OUT}")
        if (refusal := self._too_much(sample)) is not None:
            return refusal
        prompt, answer = self.prompt(sample), last.content
        if last.reasoning:
            answer = with_thought(last.reasoning, answer)
        if last.is_empty:
            return nothing_trained("the answer is empty")
        if self._end_text in answer:
            return Refusal(
                f"the answer contains the end token {self._end_text!r}, which is appended anyway; "
                "remove it from the data"
            )
        return Rendering(prompt + answer, [(len(prompt), len(prompt) + len(answer))])


def _start_ids(tokenizer: Any) -> tuple[int, ...]:
    """Return the tokens that the tokenizer puts before every text: a start token, or none."""
    bare: list[int] = tokenizer("a", add_special_tokens=False)["input_ids"]
    full: list[int] = tokenizer("a")["input_ids"]
    starts: Iterator[int] = (
        start for start in range(len(full)) if full[start : start + len(bare)] == bare
    )
    return tuple(full[: next(starts, 0)])
