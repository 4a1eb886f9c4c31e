"""Renderings: a sample as one text, with the places of its answers; or why there is none."""

from __future__ import annotations

from dataclasses import dataclass

from etude.tuning.data.schema import Message, Sample

NOTHING_TRAINED = "no trained token"
TEMPLATE_REFUSED = "not rendered by the chat template"


@dataclass(frozen=True, slots=True)
class Rendering:
    """A sample rendered to text."""

    text: str
    answers: list[tuple[int, int]]
    """(start, end) in characters of each answer, including its end token if present."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a sample cannot be encoded."""

    message: str
    reason: str | None = None
    """Reason to count a dropped sample under, if the recipe may drop it."""

    rewrites: bool = False
    """Whether the template renders an earlier answer differently once later turns follow; the
    conversation can then be split into one sample per answer."""


def through_last_answer(sample: Sample) -> tuple[Message, ...]:
    """Return the conversation up to its last trained answer; what follows is not seen."""
    for place in range(len(sample.messages) - 1, -1, -1):
        if is_trained(sample.messages[place]):
            return sample.messages[: place + 1]
    return ()


def is_trained(turn: Message) -> bool:
    """Whether a turn is an answer that the data do not mark as context."""
    return turn.role == "assistant" and turn.trained


def nothing_trained(why: str) -> Refusal:
    """Return the refusal of a sample without trained tokens."""
    return Refusal(
        f"{why}, so nothing would be trained; fix the row, or set data.no_trained_tokens to drop",
        NOTHING_TRAINED,
    )
