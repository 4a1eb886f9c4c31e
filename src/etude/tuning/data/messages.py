r"""Parsing of conversation turns: OpenAI's {role, content} and ShareGPT's {from, value}.

    {"role": "assistant", "content": null, "tool_calls": [{"id": "a1", "type": "function",
        "function": {"name": "weather", "arguments": "{\"city\": \"Oslo\"}"}}]}
    {"role": "tool", "tool_call_id": "a1", "content": "-3 °C"}
    {"from": "gpt", "value": "It is cold."}

Both are read into `Message`, which remembers the keys that were read and those that were not; error
messages name the row and the turn.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, cast

from etude.core.errors import DataError, did_you_mean
from etude.tuning.data.columns import (
    ABSENT,
    checked,
    missing,
    names,
    parsed,
    shown,
    value_at,
)
from etude.tuning.data.schema import Message, Role, ToolCall
from etude.tuning.data.sources.registry import Row

ROLES: dict[str, Role] = {
    "system": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "developer": "system",
    "human": "user",
    "gpt": "assistant",
    "model": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "bot": "assistant",
    "function": "tool",
    "ipython": "tool",
    "observation": "tool",
    "function_response": "tool",
    "tool_response": "tool",
    "function_call": "assistant",
}
"""Values of `role` and of ShareGPT's `from` in common data sets; those of templates first."""

_CALLING = "function_call"
"""Role of a turn whose text is a tool call, JSON of {name, arguments}."""

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
        speakers: whether error messages ask for {from, value}; either is read.

    Raises:
        DataError: naming the row and the turn.
    """
    value = value_at(row.values, column)
    if value is ABSENT:
        raise missing(row, column, key)
    return messages_of(value, f"{row.origin}: ", column, speakers=speakers)


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
        _turn(turn, f"{place}{word} {number}", form)
        for number, turn in enumerate(cast("Sequence[Any]", listed), start=1)
    )


def read_message(turn: Any, where: str) -> Message:
    """Return one message of plain data, `{role, content}`; `where` begins error messages.

    Raises:
        DataError: it is none.
    """
    return _turn(turn, where, "{role, content}")


def _turn(turn: Any, where: str, form: str) -> Message:
    if not isinstance(turn, Mapping):
        raise DataError(f"{where} must be {form}, got {shown(turn)}")
    fields = cast("Mapping[str, Any]", turn)
    if "from" in fields and "role" not in fields:
        names_of = {"role": "from", "content": "value"}
    else:
        names_of = {"role": "role", "content": "content"}
    watched = _Fields(fields, {names_of["role"], names_of["content"]})
    message = _message(watched, names_of, where)
    return replace(message, read=watched.names(read=True), unread=watched.names(read=False))


class _Fields:
    """Keys of a message, which remember what was read."""

    def __init__(self, fields: Mapping[str, Any], used: set[str]) -> None:
        self.fields = fields
        self._used = used
        self._inner: dict[str, None] = {}
        """Unread keys of what the message contains: calls, parts of its content."""

    def get(self, name: str) -> Any:
        self._used.add(name)
        return self.fields.get(name)

    def unread_inside(self, what: str, inner: Mapping[str, Any], known: set[str]) -> None:
        """Note the keys of a part of the message that are not known."""
        for name, value in inner.items():
            if name not in known and value is not None:
                self._inner[f"{what} key {name!r}"] = None

    def names(self, *, read: bool) -> tuple[str, ...]:
        """Return the keys that say something and were read, or were not, in words."""
        keys = tuple(
            name
            for name, value in self.fields.items()
            if value is not None and (name in self._used) == read
        )
        return _in_words(keys) if read else (*_in_words(keys), *self._inner)


@lru_cache(maxsize=1024)
def _in_words(keys: tuple[str, ...]) -> tuple[str, ...]:
    # Messages are alike: one object for all with the same keys.
    return tuple(f"message key {name!r}" for name in keys)


def _message(fields: _Fields, names_of: Mapping[str, str], where: str) -> Message:
    speaker, content = (fields.get(names_of[part]) for part in ("role", "content"))
    calls: Any = fields.get("tool_calls") or fields.get("function_call") or ()
    if content is None and calls:
        content = ""
    absent = [
        names_of[part] for part, value in (("role", speaker), ("content", content)) if value is None
    ]
    if absent:
        raise DataError(f"{where} has no {' and no '.join(absent)}; it has {names(fields.fields)}")
    role = _role(str(speaker), where)
    if str(speaker) == _CALLING:
        calls, content = parsed(content, f"{where}: the call"), ""
    if isinstance(content, (list, tuple)):
        content = _joined_parts(cast("list[Any]", content), fields, where)
    if not isinstance(content, str):
        raise DataError(f"{where}: content must be text, got {shown(content)}")
    if calls and role != "assistant":
        raise DataError(f"{where}: only assistant turns can call tools, this is a {role} turn")
    trained = _trained(fields, role, where)
    if role != "assistant":
        name = _text_or_none(fields.get("name")) if role == "tool" else None
        call_id = _text_or_none(fields.get("tool_call_id")) if role == "tool" else None
        return Message(role, checked(content, where), name=name, call_id=call_id)
    calls = parsed(calls, f"{where}: tool_calls")
    return Message(
        role,
        checked(content, where),
        reasoning=_reasoning(fields, where),
        tool_calls=_calls(_as_list(calls), fields, where),
        trained=trained,
    )


def _role(name: str, where: str) -> Role:
    role = ROLES.get(name)
    if role is None:
        raise DataError(
            f"{where}: unknown role {name!r}{did_you_mean(name, ROLES)}; known: {', '.join(ROLES)}"
        )
    return role


MASKS: dict[str, bool] = {
    "weight": True,
    "train": True,
    "training": True,
    "loss": True,
    "prefix": False,
    "masked": False,
}
"""Keys that say of an answer whether it is trained, and what `true` means: trained, or context.

`weight` is OpenAI's and Mistral's, `train` and `training` Axolotl's, `loss` ms-swift's, `masked`
torchtune's. `prefix` marks a beginning that is given to the model, not written by it (Mistral,
DeepSeek).
"""


def _trained(fields: _Fields, role: Role, where: str) -> bool:
    """Return whether a turn is trained, as its own keys say.

    Raises:
        DataError: a value is neither true nor false, two keys contradict each other, or a turn is
            to be trained that is no answer.
    """
    said: dict[str, bool] = {}
    for name, means_trained in MASKS.items():
        if name not in fields.fields or (value := fields.get(name)) is None:
            continue
        # 1 == True: numbers and booleans alike.
        if not isinstance(value, (bool, int, float)) or value not in (0, 1):
            raise DataError(
                f"{where}: {name} must be true or false (1 or 0), as a turn is trained whole or "
                f"not at all; got {shown(value)}"
            )
        said[name] = bool(value) == means_trained
    if (value := fields.fields.get("train_detail")) is not None:
        raise DataError(
            f"{where}: train_detail trains parts of a turn, which is not supported, got "
            f"{shown(value)}; say train: true or false, or remove it"
        )
    # An answer that is no prefix, or not masked, is an answer like any other.
    claims = {name: trained for name, trained in said.items() if not trained or MASKS[name]}
    if len(set(claims.values())) > 1:
        told = " and ".join(f"{name}: {shown(fields.fields[name])}" for name in claims)
        raise DataError(f"{where}: {told} contradict each other; keep one of them")
    trained = all(claims.values())
    if role != "assistant" and claims and trained:
        name = next(iter(claims))
        raise DataError(
            f"{where}: {name}: {shown(fields.fields[name])} on a {role} turn, but only answers "
            f"are trained; remove {name} there, or set it to 0"
        )
    return trained


def _reasoning(fields: _Fields, where: str) -> str:
    for name in REASONING_FIELDS:
        if name not in fields.fields:
            continue
        thought: Any = fields.get(name)
        if isinstance(thought, str) and thought.strip():
            return checked(thought, f"{where}: {name}")
        if thought is not None and not isinstance(thought, str):
            raise DataError(f"{where}: {name} must be text, got {shown(thought)}")
    return ""


def _joined_parts(parts: list[Any], fields: _Fields, where: str) -> str:
    """Join content given as parts, `[{"type": "text", "text": ...}, ...]`."""
    texts: list[str] = []
    for part in parts:
        inner = _object(part)
        text: Any = inner.get("text")
        if inner.get("type") != "text" or not isinstance(text, str):
            raise DataError(f"{where}: only content of type 'text' is supported, got {shown(part)}")
        fields.unread_inside("content part", inner, {"type", "text"})
        texts.append(text)
    return "".join(texts)


# Tools


def read_tools(row: Row, column: str) -> tuple[Mapping[str, Any], ...]:
    """Return the tools listed in a row's column; empty without such a column.

    A bare `{name, parameters}` is wrapped in OpenAI's `{"type": "function", "function": ...}`, as
    is each of Gemini's `{"functionDeclarations": [...]}`.

    Raises:
        DataError: the column does not contain tools.
    """
    value: Any = value_at(row.values, column)
    where = f"{row.origin}: column {column!r}"
    if value is ABSENT or value is None or value == "":
        return ()
    listed = parsed(value, where)
    if not isinstance(listed, (list, tuple)):
        raise DataError(f"{where} must be a list of tools, got {shown(listed)}")
    tools: list[Mapping[str, Any]] = []
    entries = [
        inner
        for entry in cast("Sequence[Any]", listed)
        for inner in _declared(parsed(entry, where))
    ]
    for number, entry in enumerate(entries, start=1):
        tool = _object(entry)
        function = _object(tool.get("function", tool))
        if not isinstance(function.get("name"), str):
            raise DataError(
                f"{where}, tool {number} must be a JSON schema with the function's name, "
                f"got {shown(entry)}"
            )
        tools.append({"type": "function", "function": function})
    return tuple(tools)


def _declared(entry: Any) -> list[Any]:
    """Return the tools of one entry: of Gemini's, each function that it declares."""
    fields = _object(entry)
    for key in ("functionDeclarations", "function_declarations"):
        if isinstance(fields.get(key), (list, tuple)):
            return list(cast("Sequence[Any]", fields[key]))
    return [entry]


def _object(value: Any) -> dict[str, Any]:
    """Return an object's fields; empty for other values."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _as_list(calls: Any) -> list[Any]:
    return list(cast("Sequence[Any]", calls)) if isinstance(calls, (list, tuple)) else [calls]


ARGUMENTS = ("arguments", "parameters", "args", "input")
"""Keys of a call's arguments: OpenAI's, Llama 3's, LangChain's, Anthropic's."""


def _calls(calls: Sequence[Any], fields: _Fields, where: str) -> tuple[ToolCall, ...]:
    found: list[ToolCall] = []
    for number, call in enumerate(calls, start=1):
        place = f"{where}, tool call {number}"
        outer = _object(call)
        function = _object(outer.get("function", outer))
        name: Any = function.get("name")
        if not isinstance(name, str) or not name:
            raise DataError(f"{place} must be {{name, arguments}}, got {shown(call)}")
        key = next((key for key in ARGUMENTS if key in function), ARGUMENTS[0])
        given: Any = function.get(key)
        # OpenAI stores arguments as JSON text; templates format them themselves.
        arguments: Any = {} if given in (None, "") else parsed(given, f"{place}: {key}")
        if not isinstance(arguments, Mapping):
            raise DataError(f"{place}: {key} must be an object, got {shown(given)}")
        known = {"id", "type", "name", key}
        if function is outer:
            fields.unread_inside("tool call", outer, known)
        else:
            fields.unread_inside("tool call", outer, {"id", "type", "function"})
            fields.unread_inside("tool call", function, known)
        call_id = _text_or_none(outer.get("id"))
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
