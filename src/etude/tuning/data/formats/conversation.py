"""What formats of conversations share: the recipe's system message, reasoning, a row's own system.

It registers no format.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from etude.tuning.config.sections.data import DataSpec
from etude.tuning.data.columns import field_reader, read_text
from etude.tuning.data.messages import read_messages, read_tools, without_reasoning
from etude.tuning.data.schema import Message, Sample
from etude.tuning.data.sources.registry import Row

CONVERSATIONS = ("conversations", "conversation")
"""Columns of ShareGPT's turns."""


def conversation_sample(turns: Sequence[Message], row: Row, spec: DataSpec) -> Sample:
    """Return the sample of one conversation, with the row's tools."""
    return Sample(prepared(turns, spec), None, row.origin, tools=read_tools(row, spec.tools))


def prepared(turns: Sequence[Message], spec: DataSpec) -> tuple[Message, ...]:
    """Return a conversation with the recipe's system message, and reasoning kept or dropped."""
    if spec.reasoning == "drop":
        turns = [without_reasoning(turn) for turn in turns]
    if spec.system is not None and turns[0].role != "system":
        turns = (Message("system", spec.system), *turns)
    return tuple(turns)


def question_and_answer(prompt: str, answer: str) -> tuple[Message, ...]:
    """Return a conversation of two turns."""
    return Message("user", prompt), Message("assistant", answer)


def with_row_system(row: Row, turns: tuple[Message, ...]) -> tuple[Message, ...]:
    """Put a row's own `system` column before its turns, where it says something."""
    system: Any = row.values.get("system")
    if not isinstance(system, str) or not system.strip() or turns[0].role == "system":
        return turns
    return (Message("system", read_text(row, "system", "the system message")), *turns)


def prompt_turns(row: Row, spec: DataSpec) -> tuple[Message, ...]:
    """Return what is answered: a text, a list of turns, or the conversation's own column."""
    column = spec.prompt
    if column not in row.values:
        column = next((c for c in ("messages", *CONVERSATIONS) if c in row.values), column)
    if isinstance(row.values.get(column), (list, tuple)):
        return with_row_system(row, read_messages(row, column, "data.prompt", speakers=True))
    prompt = field_reader(spec.prompt, "data.prompt")(row)
    return with_row_system(row, (Message("user", prompt),))
