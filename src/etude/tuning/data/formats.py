"""From a row (column: value) to a sample, with every complaint naming the row.

    messages            {messages: [{role, content}, ...], tools?}
    sharegpt            {conversations: [{from, value}, ...], system?, tools?}
    alpaca              {instruction, input?, output, system?, history?}
    prompt_completion   two columns, or templates such as "Question: {question}"
    text                a column of plain text
    preference          {prompt, chosen, rejected}, texts or lists of turns; or two conversations
                        that begin alike
    unpaired_preference {prompt, completion, label} or {messages, label}

`auto` looks at the columns of the first row; see `_layout` for the order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

from etude.core.errors import DataError
from etude.tuning.config.sections.data import DataSpec
from etude.tuning.data.columns import (
    columns_of,
    field_reader,
    missing,
    names,
    read_text,
    shown,
)
from etude.tuning.data.messages import (
    common_turns,
    messages_of,
    read_messages,
    read_tools,
    without_reasoning,
)
from etude.tuning.data.schema import Message, Sample
from etude.tuning.data.sources import Row

Layout = Literal[
    "messages",
    "prompt_completion",
    "text",
    "sharegpt",
    "alpaca",
    "preference",
    "unpaired_preference",
]

CONVERSATIONS = ("conversations", "conversation")
"""Columns of ShareGPT's turns."""

_LABELS: dict[object, bool] = {
    True: True,
    False: False,
    **dict.fromkeys(("true", "1", "1.0", "yes"), True),
    **dict.fromkeys(("false", "0", "0.0", "no"), False),
}
"""What a label may be; 1 and 0 equal True and False."""


def sample_reader(spec: DataSpec, first: Row) -> Callable[[Row], Sample]:
    """Return the function that reads rows like `first`, by `spec.format` or by its columns.

    Raises:
        DataError: `format: auto` finds none of the columns that it looks for.
    """
    layout = spec.format if spec.format != "auto" else _layout(spec, first)
    if layout == "text":
        return lambda row: Sample.plain(read_text(row, spec.text, "data.text"), row.origin)
    if layout == "preference":
        return lambda row: _pair(row, spec)
    if layout == "unpaired_preference":
        return lambda row: _unpaired(row, spec)
    if layout == "prompt_completion":
        prompt = field_reader(spec.prompt, "data.prompt")
        completion = field_reader(spec.completion, "data.completion")
        return lambda row: _sample(_asked(prompt(row), completion(row)), row, spec)
    read = {"messages": _messages, "sharegpt": _sharegpt, "alpaca": _alpaca}[layout]
    return lambda row: _sample(read(row), row, spec)


def _layout(spec: DataSpec, first: Row) -> Layout:
    """Find how rows are to be read: preferences first, then conversations."""
    columns = set(first.values)
    asked = columns_of(spec.prompt, "data.prompt") | columns_of(spec.completion, "data.completion")
    fields = DataSpec.model_fields
    named = {
        name
        for name in ("prompt", "completion", "text", "chosen", "rejected", "label")
        if getattr(spec, name) != fields[name].default
    }
    if {spec.chosen, spec.rejected} <= columns or named & {"chosen", "rejected"}:
        return "preference"
    if "label" in named:
        return "unpaired_preference"
    if named & {"prompt", "completion"}:
        # The person named the columns; should one be missing, the row's own error says which.
        return "prompt_completion"
    labelled = _desirable(first.values.get(spec.label)) is not None
    if labelled and (asked <= columns or "messages" in columns):
        return "unpaired_preference"
    if "messages" in columns:
        return "messages"
    if columns & set(CONVERSATIONS):
        return "sharegpt"
    if {"instruction", "output"} <= columns:
        return "alpaca"
    if asked <= columns:
        return "prompt_completion"
    if spec.text in columns or "text" in named:
        return "text"
    raise DataError(
        f"{first.origin}: expected a column 'messages' or 'conversations', columns 'prompt' and "
        "'completion', 'instruction' and 'output', or 'chosen' and 'rejected', or a "
        f"column 'text'; this row has {names(columns)}: name yours by data.prompt and "
        "data.completion (a column, or a template with {columns}), or by data.text"
    )


def _sample(turns: Sequence[Message], row: Row, spec: DataSpec) -> Sample:
    return Sample(_put(turns, spec), None, row.origin, tools=read_tools(row, spec.tools))


def _put(turns: Sequence[Message], spec: DataSpec) -> tuple[Message, ...]:
    """Put a conversation as the recipe wants it: its system message, reasoning kept or not."""
    if spec.reasoning == "drop":
        turns = [without_reasoning(turn) for turn in turns]
    if spec.system is not None and turns[0].role != "system":
        turns = (Message("system", spec.system), *turns)
    return tuple(turns)


def _asked(prompt: str, answer: str) -> tuple[Message, ...]:
    return Message("user", prompt), Message("assistant", answer)


# Conversations


def _messages(row: Row) -> tuple[Message, ...]:
    return read_messages(row, "messages", "data.format: messages")


def _sharegpt(row: Row) -> tuple[Message, ...]:
    column = next((name for name in CONVERSATIONS if name in row.values), CONVERSATIONS[0])
    turns = read_messages(row, column, "data.format: sharegpt", speakers=True)
    return _with_system(row, turns)


def _alpaca(row: Row) -> tuple[Message, ...]:
    """Read instruction, input and output, as Stanford Alpaca's columns are (Taori et al. 2023).

    The input, where there is one, follows the instruction after an empty line. `history`, a list
    of earlier [instruction, answer], and `system` are columns of some of its successors.
    """
    key = "data.format: alpaca"
    instruction = _text_or_empty(row, "instruction", key)
    extra = _text_or_empty(row, "input", key) if "input" in row.values else ""
    prompt = "\n\n".join(part for part in (instruction, extra) if part.strip())
    if not prompt:
        raise DataError(f"{row.origin}: 'instruction' and 'input' are both empty")
    turns: list[Message] = []
    earlier = cast("Sequence[Any]", row.values.get("history") or ())
    for number, entry in enumerate(earlier, start=1):
        texts = cast("Sequence[Any]", entry if isinstance(entry, (list, tuple)) else ())
        if len(texts) != 2 or not all(isinstance(text, str) for text in texts):
            raise DataError(
                f"{row.origin}: history {number} must be [instruction, answer], got {shown(entry)}"
            )
        turns += _asked(texts[0], texts[1])
    return _with_system(row, (*turns, *_asked(prompt, read_text(row, "output", key))))


def _text_or_empty(row: Row, column: str, key: str) -> str:
    if column in row.values and row.values[column] is None:
        return ""
    return read_text(row, column, key)


def _with_system(row: Row, turns: tuple[Message, ...]) -> tuple[Message, ...]:
    """Put a row's own `system` column before its turns, where it says something."""
    system: Any = row.values.get("system")
    if not isinstance(system, str) or not system.strip() or turns[0].role == "system":
        return turns
    return (Message("system", read_text(row, "system", "the system message")), *turns)


# Answers to compare


def _pair(row: Row, spec: DataSpec) -> Sample:
    """Read two answers, or two conversations; what they share at the beginning is the prompt."""
    for column, key in ((spec.chosen, "data.chosen"), (spec.rejected, "data.rejected")):
        if column not in row.values:
            raise missing(row, column, key)
    chosen, rejected = (
        _put(_side(row, column, spec), spec) for column in (spec.chosen, spec.rejected)
    )
    shared = common_turns(chosen, rejected)
    if shared == 0:
        raise DataError(
            f"{row.origin}: {spec.chosen!r} and {spec.rejected!r} begin differently; both must "
            "answer the same prompt"
        )
    # Equal answers share all their turns: the last of them is what would be compared.
    shared = min(shared, len(chosen) - 1, len(rejected) - 1)
    for column, turns in ((spec.chosen, chosen), (spec.rejected, rejected)):
        if not any(turn.role == "assistant" for turn in turns[shared:]):
            raise DataError(f"{row.origin}: {column!r} has no answer after what both share")
    tools = read_tools(row, spec.tools)
    return Sample(chosen, None, row.origin, tools=tools, rejected=rejected, context=shared)


def _side(row: Row, column: str, spec: DataSpec) -> tuple[Message, ...]:
    """Return the whole conversation that one column of a pair ends."""
    value: Any = row.values[column]
    listed: Any = [value] if isinstance(value, dict) else value
    if not isinstance(listed, (list, tuple)):
        answer = Message("assistant", read_text(row, column, f"data.{column}"))
        return (*_prompt_turns(row, spec), answer)
    turns = messages_of(listed, f"{row.origin}: ", column, speakers=True)
    if turns[0].role == "assistant":
        return (*_prompt_turns(row, spec), *turns)
    prompt: Any = row.values.get(spec.prompt)
    if isinstance(prompt, (list, tuple)) and prompt:
        before = _prompt_turns(row, spec)
        return turns if turns[: len(before)] == before else (*before, *turns)
    return turns


def _prompt_turns(row: Row, spec: DataSpec) -> tuple[Message, ...]:
    """Return what is answered: a text, a list of turns, or the conversation's own column."""
    column = spec.prompt
    if column not in row.values:
        column = next((c for c in ("messages", *CONVERSATIONS) if c in row.values), column)
    if isinstance(row.values.get(column), (list, tuple)):
        return _with_system(row, read_messages(row, column, "data.prompt", speakers=True))
    prompt = field_reader(spec.prompt, "data.prompt")(row)
    return _with_system(row, (Message("user", prompt),))


def _unpaired(row: Row, spec: DataSpec) -> Sample:
    """Read an answer and whether it is desirable; only the last answer is labelled."""
    if spec.label not in row.values:
        raise missing(row, spec.label, "data.label")
    desirable = _desirable(row.values[spec.label])
    if desirable is None:
        raise DataError(
            f"{row.origin}: column {spec.label!r} must say whether the answer is desirable (true, "
            f"false, 1 or 0), got {shown(row.values[spec.label])}"
        )
    completion: Any = row.values.get(spec.completion)
    if spec.completion not in row.values and "messages" in row.values:
        turns = _messages(row)
    elif isinstance(completion, (list, tuple, dict)):
        listed = cast("Any", [completion] if isinstance(completion, dict) else completion)
        answer = messages_of(listed, f"{row.origin}: ", spec.completion, speakers=True)
        turns = (*_prompt_turns(row, spec), *answer)
    else:
        answered = field_reader(spec.completion, "data.completion")(row)
        turns = (*_prompt_turns(row, spec), Message("assistant", answered))
    turns = _put(turns, spec)
    last = max((n for n, turn in enumerate(turns) if turn.role == "assistant"), default=None)
    if last is None:
        raise DataError(f"{row.origin}: there is no answer that the label could be of")
    tools = read_tools(row, spec.tools)
    return Sample(turns, None, row.origin, tools=tools, desirable=desirable, context=last)


def _desirable(value: object) -> bool | None:
    """Return what a label says, None where it says nothing of the kind."""
    key = value.strip().lower() if isinstance(value, str) else value
    try:
        return _LABELS.get(key)
    except TypeError:  # a list or an object
        return None
