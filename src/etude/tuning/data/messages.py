r"""Parsing of conversation turns: OpenAI's {role, content} and ShareGPT's {from, value}.

    {"role": "assistant", "content": null, "tool_calls": [{"id": "a1", "type": "function",
        "function": {"name": "weather", "arguments": "{\"city\": \"Oslo\"}"}}]}
    {"role": "tool", "tool_call_id": "a1", "content": "-3 °C"}
    {"from": "gpt", "value": "It is cold."}

Both are read into `Message`; error messages name the row and the turn.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from etude.core.errors import DataError, did_you_mean
from etude.tuning.data.columns import checked, missing, names, parsed, shown
from etude.tuning.data.schema import Message, Role, ToolCall
from etude.tuning.data.sources.registry import Row

ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}
"""Roles of OpenAI's messages, including newer and older names."""

SPEAKERS: dict[str, Role] = {
    **ROLES,
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "function_call": "assistant",
    "observation": "tool",
    "function_response": "tool",
    "tool_response": "tool",
}
"""Values of ShareGPT's `from` in common data sets."""

REASONING_FIELDS = ("reasoning_content", "reasoning", "thinking")
"""Fields with the reasoning of an assistant's turn."""

_THOUGHTS = re.compile(r"<think>.*?</think>\s*", re.DOTALL)


def read_messages(
    row: Row, column: str, key: str, *, speakers: bool = False
) -> tuple[Message, ...]:
    """Return the turns listed in a column.

    Args:
        row: a row of the data.
        column: a column with a list of turns, or its JSON.
        key: the recipe key that names the column, for messages.
        speakers: whether turns are {from, value}; {role, content} are then read as well.

    Raises:
        DataError: naming the row and the turn.
    """
    if column not in row.values:
        raise missing(row, column, key)
    return messages_of(row.values[column], f"{row.origin}: ", column, speakers=speakers)


def messages_of(
    listed: Any, place: str, column: str, *, speakers: bool = False
) -> tuple[Message, ...]:
    """Return the turns of a list; see `read_messages`. `place` is the prefix of error messages."""
    form = "{from, value}" if speakers else "{role, content}"
    if isinstance(listed, str) and listed.lstrip().startswith("["):
        listed = parsed(listed, f"{place}{column!r}")
    if not isinstance(listed, (list, tuple)) or not listed:
        raise DataError(f"{place}{column!r} must be a list of {form}, got {shown(listed)}")
    word = "message" if column == "messages" else f"{column} turn"
    return tuple(
        _turn(turn, f"{place}{word} {number}", form, speakers)
        for number, turn in enumerate(cast("Sequence[Any]", listed), start=1)
    )


def _turn(turn: Any, where: str, form: str, speakers: bool) -> Message:
    if not isinstance(turn, Mapping):
        raise DataError(f"{where} must be {form}, got {shown(turn)}")
    fields = cast("Mapping[str, Any]", turn)
    if speakers and "from" in fields:
        return _spoken(fields, where)
    return _message(fields, where)


def _spoken(fields: Mapping[str, Any], where: str) -> Message:
    """Read a turn of ShareGPT; a `function_call` is JSON of {name, arguments}."""
    absent = [name for name in ("from", "value") if fields.get(name) is None]
    if absent:
        raise DataError(f"{where} has no {' and no '.join(absent)}; it has {names(fields)}")
    speaker = str(fields["from"])
    role = _role(speaker, SPEAKERS, where)
    if speaker == "function_call":
        calls = parsed(fields["value"], f"{where}: the call")
        return Message(role, "", tool_calls=_calls(_as_list(calls), where))
    return replace(_message({**fields, "role": role, "content": fields["value"]}, where), role=role)


def _message(fields: Mapping[str, Any], where: str) -> Message:
    calls: Any = fields.get("tool_calls") or fields.get("function_call") or ()
    content: Any = fields.get("content")
    if content is None and calls:
        content = ""
    absent = [
        name
        for name, value in (("role", fields.get("role")), ("content", content))
        if value is None
    ]
    if absent:
        raise DataError(f"{where} has no {' and no '.join(absent)}; it has {names(fields)}")
    role = _role(str(fields["role"]), ROLES, where)
    if isinstance(content, (list, tuple)):
        content = _joined_parts(cast("list[Any]", content), where)
    if not isinstance(content, str):
        raise DataError(f"{where}: content must be text, got {shown(content)}")
    if calls and role != "assistant":
        raise DataError(f"{where}: only assistant turns can call tools, this is a {role} turn")
    if role != "assistant":
        name = _text_or_none(fields.get("name")) if role == "tool" else None
        call_id = _text_or_none(fields.get("tool_call_id"))
        return Message(role, checked(content, where), name=name, call_id=call_id)
    calls = parsed(calls, f"{where}: tool_calls")
    return Message(
        role,
        checked(content, where),
        reasoning=_reasoning(fields, where),
        tool_calls=_calls(_as_list(calls), where),
    )


def _role(name: str, known: Mapping[str, Role], where: str) -> Role:
    role = known.get(name)
    if role is None:
        listed = ", ".join(dict.fromkeys(known.values()) if known is ROLES else known)
        raise DataError(
            f"{where}: unknown role {name!r}{did_you_mean(name, known)}; known: {listed}"
        )
    return role


def _reasoning(fields: Mapping[str, Any], where: str) -> str:
    for name in REASONING_FIELDS:
        thought: Any = fields.get(name)
        if isinstance(thought, str) and thought.strip():
            return checked(thought, f"{where}: {name}")
        if thought is not None and not isinstance(thought, str):
            raise DataError(f"{where}: {name} must be text, got {shown(thought)}")
    return ""


def _joined_parts(parts: list[Any], where: str) -> str:
    """Join content given as parts, `[{"type": "text", "text": ...}, ...]`."""
    texts: list[str] = []
    for part in parts:
        fields = _object(part)
        text: Any = fields.get("text")
        if fields.get("type") != "text" or not isinstance(text, str):
            raise DataError(f"{where}: only content of type 'text' is supported, got {shown(part)}")
        texts.append(text)
    return "".join(texts)


# Tools


def read_tools(row: Row, column: str) -> tuple[Mapping[str, Any], ...]:
    """Return the tools listed in a row's column; empty without such a column.

    A bare `{name, parameters}` is wrapped in OpenAI's `{"type": "function", "function": ...}`.

    Raises:
        DataError: the column does not contain tools.
    """
    value: Any = row.values.get(column)
    where = f"{row.origin}: column {column!r}"
    if value is None or value == "":
        return ()
    listed = parsed(value, where)
    if not isinstance(listed, (list, tuple)):
        raise DataError(f"{where} must be a list of tools, got {shown(listed)}")
    tools: list[Mapping[str, Any]] = []
    for number, entry in enumerate(cast("Sequence[Any]", listed), start=1):
        tool = _object(without_nulls(parsed(entry, f"{where}, tool {number}")))
        function = _object(tool.get("function", tool))
        if not isinstance(function.get("name"), str):
            raise DataError(
                f"{where}, tool {number} must be a JSON schema with the function's name, "
                f"got {shown(entry)}"
            )
        tools.append({"type": "function", "function": function})
    return tuple(tools)


def without_nulls(value: Any) -> Any:
    """Return plain data without its null entries.

    Parquet and Arrow give every object of a column the keys of all of them, null if absent;
    rendered, they would teach a model to pass these arguments.
    """
    if isinstance(value, Mapping):
        fields = cast("Mapping[str, Any]", value)
        return {name: without_nulls(v) for name, v in fields.items() if v is not None}
    if isinstance(value, (list, tuple)):
        return [without_nulls(v) for v in cast("Sequence[Any]", value)]
    return value


def _object(value: Any) -> dict[str, Any]:
    """Return an object's fields; empty for other values."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _as_list(calls: Any) -> list[Any]:
    return list(cast("Sequence[Any]", calls)) if isinstance(calls, (list, tuple)) else [calls]


def _calls(calls: Sequence[Any], where: str) -> tuple[ToolCall, ...]:
    found: list[ToolCall] = []
    for number, call in enumerate(calls, start=1):
        place = f"{where}, tool call {number}"
        fields = _object(call)
        function = _object(fields.get("function", fields))
        name: Any = function.get("name")
        if not isinstance(name, str) or not name:
            raise DataError(f"{place} must be {{name, arguments}}, got {shown(call)}")
        given: Any = function.get("arguments")
        # OpenAI stores arguments as JSON text; templates format them themselves.
        arguments: Any = {} if given in (None, "") else parsed(given, f"{place}: arguments")
        if not isinstance(arguments, Mapping):
            raise DataError(f"{place}: arguments must be an object, got {shown(given)}")
        if not isinstance(given, str):
            arguments = without_nulls(arguments)
        call_id = _text_or_none(fields.get("id"))
        found.append(ToolCall(name, cast("Mapping[str, Any]", arguments), call_id))
    return tuple(found)


def _text_or_none(value: Any) -> str | None:
    return None if value is None or value == "" else str(value)


# Reasoning


def without_reasoning(turn: Message) -> Message:
    """Return an assistant's turn without reasoning; other turns unchanged."""
    if turn.role != "assistant":
        return turn
    return replace(turn, reasoning="", content=_THOUGHTS.sub("", turn.content))


def common_turns(first: Sequence[Message], second: Sequence[Message]) -> int:
    """Return the length of the common prefix of two conversations, in turns."""
    shared = 0
    for a, b in zip(first, second, strict=False):
        if a != b:
            break
        shared += 1
    return shared
