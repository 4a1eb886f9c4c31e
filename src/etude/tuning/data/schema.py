"""From a row (column: value) to a sample, with every complaint naming the row.

Three shapes of row are read: `messages`, a list of {role, content}; a prompt and a completion,
each a column or a template such as `"Question: {question}"`; and a column of plain text.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from etude.errors import DataError, did_you_mean
from etude.tuning.data.sources import Row
from etude.tuning.specs import DataSpec

Role = Literal["system", "user", "assistant"]
_ROLES: dict[str, Role] = {"system": "system", "user": "user", "assistant": "assistant"}


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str

    def as_dict(self) -> dict[str, str]:
        """Return the form that chat templates take."""
        return {"role": self.role, "content": self.content}


@dataclass(frozen=True, slots=True)
class Sample:
    """A conversation whose assistant turns are learnt, or a text that is learnt whole."""

    messages: tuple[Message, ...]
    """Empty where `text` is given."""

    text: str | None
    """None where `messages` is given."""

    origin: str
    """Where it was read, as in `train.jsonl:12`."""

    @classmethod
    def conversation(cls, *turns: tuple[Role, str], origin: str) -> Sample:
        """Build a sample from (role, content) pairs."""
        return cls(tuple(Message(role, content) for role, content in turns), None, origin)

    @classmethod
    def plain(cls, text: str, origin: str) -> Sample:
        """Build a sample of plain text."""
        return cls((), text, origin)


def sample_reader(spec: DataSpec, first: Row) -> Callable[[Row], Sample]:
    """Return the function that reads rows like `first`, by `spec.format` or by its columns.

    Raises:
        DataError: `format: auto` finds none of the columns that it looks for.
    """
    layout = spec.format if spec.format != "auto" else _layout(spec, first)
    if layout == "messages":
        return lambda row: _messages_sample(row, spec.system)
    if layout == "text":
        return lambda row: Sample.plain(_text(row, spec.text, "data.text"), row.origin)
    prompt = _field(spec.prompt, "data.prompt")
    completion = _field(spec.completion, "data.completion")

    def read(row: Row) -> Sample:
        turns = [Message("user", prompt(row)), Message("assistant", completion(row))]
        if spec.system is not None:
            turns.insert(0, Message("system", spec.system))
        return Sample(tuple(turns), None, row.origin)

    return read


def _layout(spec: DataSpec, first: Row) -> Literal["messages", "prompt_completion", "text"]:
    columns = set(first.values)
    wanted = _columns(spec.prompt, "data.prompt") | _columns(spec.completion, "data.completion")
    fields = DataSpec.model_fields
    if (spec.prompt, spec.completion) != (fields["prompt"].default, fields["completion"].default):
        # The person named the columns; should one be missing, the row's own error says which.
        return "prompt_completion"
    if "messages" in columns:
        return "messages"
    if wanted <= columns:
        return "prompt_completion"
    if spec.text in columns or spec.text != fields["text"].default:
        return "text"
    raise DataError(
        f"{first.origin}: expected a column 'messages', columns 'prompt' and 'completion', or a "
        f"column 'text'; this row has {_names(columns)}: name yours by data.prompt and "
        "data.completion (a column, or a template with {columns}), or by data.text"
    )


def _messages_sample(row: Row, system: str | None) -> Sample:
    if "messages" not in row.values:
        raise _missing(row, "messages", "data.format: messages")
    listed: Any = row.values["messages"]
    if not isinstance(listed, (list, tuple)) or not listed:
        raise DataError(
            f"{row.origin}: 'messages' must be a list of {{role, content}}, got {_shown(listed)}"
        )
    turns = [
        _message(turn, f"{row.origin}: message {number}")
        for number, turn in enumerate(cast("list[Any]", listed), start=1)
    ]
    if system is not None and turns[0].role != "system":
        turns.insert(0, Message("system", system))
    return Sample(tuple(turns), None, row.origin)


def _message(turn: Any, where: str) -> Message:
    if not isinstance(turn, Mapping):
        raise DataError(f"{where} must be {{role, content}}, got {_shown(turn)}")
    fields = cast("Mapping[str, Any]", turn)
    missing = [name for name in ("role", "content") if fields.get(name) is None]
    if missing:
        raise DataError(f"{where} has no {' and no '.join(missing)}; it has {_names(fields)}")
    role = _ROLES.get(str(fields["role"]))
    if role is None:
        raise DataError(
            f"{where}: unknown role {fields['role']!r}{did_you_mean(str(fields['role']), _ROLES)}; "
            f"known: {', '.join(_ROLES)}"
        )
    if fields.get("tool_calls"):
        raise DataError(f"{where} calls tools, which is not supported: leave such rows out")
    content: Any = fields["content"]
    if isinstance(content, (list, tuple)):
        content = _joined_parts(cast("list[Any]", content), where)
    if not isinstance(content, str):
        raise DataError(f"{where}: content must be text, got {_shown(content)}")
    return Message(role, _checked(content, where))


def _joined_parts(parts: list[Any], where: str) -> str:
    """Join content given as parts, `[{"type": "text", "text": ...}, ...]`."""
    texts: list[str] = []
    for part in parts:
        fields: dict[str, Any] = cast("dict[str, Any]", part) if isinstance(part, dict) else {}
        text: Any = fields.get("text")
        if fields.get("type") != "text" or not isinstance(text, str):
            raise DataError(
                f"{where}: only content of type 'text' is supported, got {_shown(part)}"
            )
        texts.append(text)
    return "".join(texts)


def _columns(setting: str, key: str) -> set[str]:
    """Return the columns that a setting, a column's name or a template, reads."""
    if "{" not in setting and "}" not in setting:
        return {setting}
    try:
        pieces = list(string.Formatter().parse(setting))
    except ValueError as error:
        raise DataError(f"{key}: {setting!r} is not a template: {error}") from None
    if any(spec or conversion for _, _, spec, conversion in pieces):
        raise DataError(f"{key}: {setting!r}: a column stands alone in its braces, as in {{name}}")
    columns = {name for _, name, _, _ in pieces if name is not None}
    if not columns or "" in columns:
        raise DataError(f"{key}: {setting!r} names no column: write it as in {{name}}")
    return columns


def _field(setting: str, key: str) -> Callable[[Row], str]:
    """Return the function that reads a prompt or completion by a column or template."""
    _columns(setting, key)
    if "{" not in setting and "}" not in setting:
        return lambda row: _text(row, setting, key)
    pieces = list(string.Formatter().parse(setting))

    def fill(row: Row) -> str:
        return "".join(
            literal + ("" if name is None else _text(row, name, key))
            for literal, name, _, _ in pieces
        )

    return fill


def _text(row: Row, column: str, key: str) -> str:
    if column not in row.values:
        raise _missing(row, column, key)
    value: Any = row.values[column]
    if isinstance(value, str):
        return _checked(value, f"{row.origin}: column {column!r}")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    raise DataError(f"{row.origin}: column {column!r} must be text, got {_shown(value)}")


def _checked(text: str, where: str) -> str:
    """Return text that can be encoded; JSON can hold half of a character."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{where} holds half a character, {text[error.start]!r}, at place {error.start}; "
            "write the data anew from its source"
        ) from None
    return text


def _missing(row: Row, column: str, key: str) -> DataError:
    hint = did_you_mean(column, row.values)
    return DataError(
        f"{row.origin}: no column {column!r} ({key}){hint}; this row has {_names(row.values)}"
    )


def _names(columns: Mapping[str, Any] | set[str]) -> str:
    return ", ".join(repr(name) for name in sorted(columns)) or "no columns"


def _shown(value: Any) -> str:
    """Return a value for a message: null as data calls it, long values shortened."""
    if value is None:
        return "null"
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
