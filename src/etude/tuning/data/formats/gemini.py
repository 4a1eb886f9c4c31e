"""`gemini`: {contents: [{role, parts}, ...], systemInstruction?, tools?}, as Gemini's API has it.

    {"systemInstruction": {"parts": [{"text": "Be brief."}]},
     "contents": [{"role": "user", "parts": [{"text": "Weather?"}]},
                  {"role": "model", "parts": [{"functionCall": {"name": "look", "args": {}}}]},
                  {"role": "user", "parts": [{"functionResponse":
                      {"name": "look", "response": {"sky": "grey"}}}]},
                  {"role": "model", "parts": [{"text": "Rain."}]}]}

Keys may be written in camelCase or in snake_case. Each turn becomes one of OpenAI's form, so that
marks (`weight`) and unread keys are treated alike.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

from etude.core.errors import DataError
from etude.tuning.config.sections.data import DataSpec
from etude.tuning.data.columns import names, parsed, shown
from etude.tuning.data.formats.conversation import conversation_sample
from etude.tuning.data.formats.registry import DataFormat, FirstRow, Reader, register
from etude.tuning.data.messages import messages_of
from etude.tuning.data.schema import Message, Sample
from etude.tuning.data.sources.registry import Row

_SYSTEM = ("systemInstruction", "system_instruction")
_KINDS = {
    "text": "text",
    "functionCall": "call",
    "function_call": "call",
    "functionResponse": "response",
    "function_response": "response",
}


def _recognize(first: FirstRow) -> int | None:
    return 65 if "contents" in first.columns else None


def _reader(spec: DataSpec) -> Reader:
    return lambda row: _conversation(row, spec)


def _conversation(row: Row, spec: DataSpec) -> Sample:
    where = f"{row.origin}: contents"
    listed = parsed(row.values.get("contents"), where)
    if not isinstance(listed, (list, tuple)) or not listed:
        raise DataError(f"{where} must be a list of {{role, parts}}, got {shown(listed)}")
    plain: list[dict[str, Any]] = []
    for column in _SYSTEM:
        if (given := row.values.get(column)) is None:
            continue
        where_system = f"{row.origin}: {column}"
        given = {"parts": [{"text": given}]} if isinstance(given, str) else given
        if not isinstance(given, Mapping):
            raise DataError(f"{where_system} must be {{parts}} or text, got {shown(given)}")
        turn = cast("Mapping[str, Any]", given)
        plain += _turns({**turn, "role": "system"}, where_system)
    for number, turn in enumerate(cast("Sequence[Any]", listed), start=1):
        plain += _turns(turn, f"{where} turn {number}")
    turns: Sequence[Message] = messages_of(plain, f"{row.origin}: ", "contents")
    return conversation_sample(turns, row, spec)


def _turns(turn: Any, where: str) -> list[dict[str, Any]]:
    """Return OpenAI's form of one turn: results of functions are turns of their own there."""
    fields = cast("dict[str, Any]", turn) if isinstance(turn, Mapping) else {}
    parts: Any = fields.get("parts")
    if isinstance(parts, Mapping):
        parts = [parts]
    if not isinstance(parts, (list, tuple)) or not parts:
        raise DataError(f"{where} must be {{role, parts}}, got {shown(turn)}")
    # Conversations of one turn may leave the role out.
    rest = {"role": "user", **{name: fields[name] for name in fields if name != "parts"}}
    thoughts: list[str] = []
    texts: list[str] = []
    calls: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for number, part in enumerate(cast("Sequence[Any]", parts), start=1):
        inner = cast("dict[str, Any]", part) if isinstance(part, Mapping) else {}
        said = [name for name in inner if name in _KINDS and inner[name] is not None]
        unknown = [n for n in inner if n not in (*said, "thought") and inner[n] is not None]
        if len(said) != 1 or unknown:
            raise DataError(
                f"{where}, part {number}: text, functionCall and functionResponse are read, got "
                f"{names(inner) if inner else shown(part)}"
            )
        value: Any = inner[said[0]]
        kind = _KINDS[said[0]]
        if kind == "text":
            if not isinstance(value, str):
                raise DataError(f"{where}, part {number}: text must be text, got {shown(value)}")
            (thoughts if inner.get("thought") else texts).append(value)
        elif kind == "call":
            calls.append({"function": value})
        else:
            results.append(_result(value, f"{where}, part {number}"))
    turns: list[dict[str, Any]] = list(results)
    if texts or calls or thoughts:
        said_turn = {**rest, "content": "".join(texts)}
        if thoughts:
            said_turn["reasoning"] = "".join(thoughts)
        if calls:
            said_turn["tool_calls"] = calls
        turns.append(said_turn)
    return turns


def _result(value: Any, where: str) -> dict[str, Any]:
    fields = cast("dict[str, Any]", value) if isinstance(value, Mapping) else {}
    if not isinstance(fields.get("name"), str) or "response" not in fields:
        raise DataError(f"{where} must be {{name, response}}, got {shown(value)}")
    response: Any = fields["response"]
    text = response if isinstance(response, str) else json.dumps(response, ensure_ascii=False)
    rest = {name: fields[name] for name in fields if name != "response"}
    return {"role": "tool", "tool_call_id": fields.get("id"), **rest, "content": text}


register(DataFormat("gemini", ("contents",), _recognize, _reader))
