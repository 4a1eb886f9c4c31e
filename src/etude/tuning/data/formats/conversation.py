"""What formats of conversations share: system messages, reasoning, prompts that are lists of turns.

It registers no format.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from etude.core.errors import DataError
from etude.tuning.config.sections.data import DataSpec
from etude.tuning.data.columns import (
    ABSENT,
    columns_of,
    field_reader,
    missing,
    read_text,
    shown,
    value_at,
)
from etude.tuning.data.messages import messages_of, read_tools, without_reasoning
from etude.tuning.data.schema import Message, Role, Sample
from etude.tuning.data.sources.registry import Row

CONVERSATIONS = ("conversations", "conversation")
"""Columns of ShareGPT's turns."""

SYSTEM_COLUMNS = ("system", "system_prompt", "system_message")
"""Columns that `data.system_column: auto` takes for a row's system message."""


def conversation_sample(
    turns: Sequence[Message], row: Row, spec: DataSpec, *, answered: int | None = None
) -> Sample:
    """Return the sample of one conversation, with the row's system message and tools.

    Args:
        turns: the conversation.
        row: that it was read from.
        spec: how.
        answered: how many turns at its end may be trained; None: all.
    """
    whole = prepared(turns, row, spec)
    context = 0 if answered is None else len(whole) - answered
    return Sample(whole, None, row.origin, tools=read_tools(row, spec.tools), context=context)


def prepared(turns: Sequence[Message], row: Row, spec: DataSpec) -> tuple[Message, ...]:
    """Return a conversation with its system message, and reasoning kept or dropped.

    The system message is the conversation's own, that of the row's column, or the recipe's.

    Raises:
        DataError: the conversation's own and that of the column differ.
    """
    if spec.reasoning == "drop":
        turns = [without_reasoning(turn) for turn in turns]
    system = row_system(row, spec)
    if turns[0].role == "system":
        if system is not None and system.strip() != turns[0].content.strip():
            raise DataError(
                f"{row.origin}: the conversation begins with a system message, and the row's "
                f"column has another: {shown(turns[0].content)} and {shown(system)}; keep one of "
                "them, or set data.system_column to null"
            )
        return tuple(turns)
    if system is None:
        system = spec.system
    return tuple(turns) if system is None else (Message("system", system), *turns)


def row_system(row: Row, spec: DataSpec) -> str | None:
    """Return the system message that a row has in a column of its own; None if it has none.

    Raises:
        DataError: two columns have different ones, or the column that the recipe names is missing
            or holds no text.
    """
    setting = spec.system_column
    if setting is None:
        return None
    if setting != "auto":
        if "{" not in setting:
            value = value_at(row.values, setting)
            if value is ABSENT:
                raise missing(row, setting, "data.system_column")
            if value is None:
                return None
        text = field_reader(setting, "data.system_column")(row)
        return text if text.strip() else None
    found: dict[str, str] = {}
    for column in _free_columns(spec.prompt, spec.completion):
        value: Any = row.values.get(column)
        if value is None or (isinstance(value, str) and not value.strip()):
            continue
        if not isinstance(value, str):
            raise DataError(
                f"{row.origin}: column {column!r} must be text, as it is taken for the system "
                f"message, got {shown(value)}; name another column by data.system_column, or set "
                "it to null"
            )
        found[column] = read_text(row, column, "data.system_column")
    if len({text.strip() for text in found.values()}) > 1:
        raise DataError(
            f"{row.origin}: the columns {' and '.join(map(repr, found))} have different system "
            "messages; say which one to read by data.system_column"
        )
    return next(iter(found.values()), None)


@lru_cache(maxsize=16)
def _free_columns(prompt: str, completion: str) -> tuple[str, ...]:
    """Return the columns of system messages that prompt and completion do not read themselves."""
    taken = columns_of(prompt, "data.prompt") | columns_of(completion, "data.completion")
    return tuple(column for column in SYSTEM_COLUMNS if column not in taken)


def joined_prompt(row: Row, column: str, more: str, key: str) -> str:
    """Return the text of a column, and after an empty line that of another if it has any.

    Raises:
        DataError: both are empty, or one holds no text.
    """
    texts = [
        read_text(row, name, key)
        for name in (column, more)
        if name == column or name in row.values
        if row.values.get(name, "") is not None
    ]
    prompt = "\n\n".join(text for text in texts if text.strip())
    if not prompt:
        raise DataError(f"{row.origin}: {column!r} and {more!r} are both empty")
    return prompt


def question_and_answer(prompt: str, answer: str) -> tuple[Message, ...]:
    """Return a conversation of two turns."""
    return Message("user", prompt), Message("assistant", answer)


def turns_at(row: Row, setting: str, key: str, role: Role) -> tuple[Message, ...]:
    """Return the turns of a column: a list of them, or one of `role` that is a text.

    Args:
        row: a row of the data.
        setting: a column, or a template for a text.
        key: the recipe key of the setting, for messages.
        role: of a text.
    """
    value = value_at(row.values, setting)
    listed: Any = [value] if isinstance(value, dict) else value
    if isinstance(listed, (list, tuple)):
        return messages_of(listed, f"{row.origin}: ", setting, speakers=True)
    return (Message(role, field_reader(setting, key)(row)),)


def prompt_turns(row: Row, spec: DataSpec) -> tuple[Message, ...]:
    """Return what is answered: a text, a list of turns, or the conversation's own column."""
    column = spec.prompt
    if value_at(row.values, column) is ABSENT:
        column = next((c for c in ("messages", *CONVERSATIONS) if c in row.values), column)
    if isinstance(value_at(row.values, column), (list, tuple, dict)):
        return turns_at(row, column, "data.prompt", "user")
    return turns_at(row, spec.prompt, "data.prompt", "user")
