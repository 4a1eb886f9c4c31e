r"""Probing of chat templates: the form of turns a template expects, and omitted content.

Templates agree on `role` and `content` only. The place of reasoning (a field, or
`<think>...</think>` in the content), the form of call arguments (object or JSON text), and support
for tools are determined from the template itself: from the fields it names, and by rendering a
small conversation.

    {"role": "assistant", "content": "4", "reasoning_content": "2 and 2"}     Qwen3
    {"role": "assistant", "content": "<think>\n2 and 2\n</think>\n\n4"}       ChatML
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, cast

from etude.tuning.data.messages import REASONING_FIELDS, without_reasoning
from etude.tuning.data.schema import Message, ToolCall

Render = Callable[[list[dict[str, Any]], list[Mapping[str, Any]] | None], str]
"""Applies a template to messages and tools."""

_PROBE = "etude_probe"
_TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": _PROBE,
        "description": "Looks a word up.",
        "parameters": {
            "type": "object",
            "properties": {"word": {"type": "string", "description": "The word."}},
            "required": ["word"],
        },
    },
}
# Mistral's templates insist on identifiers of nine characters.
_CALL = ToolCall(_PROBE, {"word": "yes"}, "probe0001")

_INLINE = re.compile(r"\s*<think>(.*?)</think>\s*", re.DOTALL)


class TemplateProbe:
    """Properties of a chat template.

    Args:
        template: its source.
        render: applies it.
    """

    def __init__(self, template: str, render: Render) -> None:
        self._render = render
        self._reasoning_field = next(
            (name for name in REASONING_FIELDS if _reads(template, name)), None
        )
        self._splits_inline = "</think>" in template
        self._takes_tools: bool | None = None
        self._system: Literal["rendered", "omitted", "refused"] | None = None
        self._arguments_as_text: bool | None = None

    @property
    def takes_tools(self) -> bool:
        """Whether the template renders the available tools."""
        if self._takes_tools is None:
            asked = [{"role": "user", "content": "question"}]
            self._takes_tools = _PROBE in self._render(asked, [_TOOL])
        return self._takes_tools

    @property
    def system(self) -> Literal["rendered", "omitted", "refused"]:
        """What the template does with a system message before the user's."""
        if self._system is None:
            asked = {"role": "user", "content": "question"}
            try:
                text = self._render([{"role": "system", "content": _PROBE}, asked], None)
            # Templates may raise anything.
            except Exception:
                self._system = "refused"
            else:
                self._system = "rendered" if _PROBE in text else "omitted"
        return self._system

    def dicts(self, turns: Sequence[Message]) -> list[dict[str, Any]]:
        """Return turns in the form the template expects."""
        return [self._dict(turn) for turn in turns]

    def _dict(self, turn: Message) -> dict[str, Any]:
        fields = turn.as_dict()
        thought, content = turn.reasoning, turn.content
        inline = None if thought else _INLINE.match(content)
        if inline and self._reasoning_field and not self._splits_inline:
            thought, content = inline[1].strip("\n"), content[inline.end() :]
            fields["content"] = content
        if thought and self._reasoning_field:
            fields[self._reasoning_field] = thought
        elif thought:
            fields["content"] = with_thought(thought, content)
        if turn.tool_calls and self._wants_text():
            for call in fields["tool_calls"]:
                arguments = call["function"]["arguments"]
                call["function"]["arguments"] = json.dumps(arguments, ensure_ascii=False)
        return fields

    def _wants_text(self) -> bool:
        """Return whether the template renders object arguments as a Python dict."""
        if self._arguments_as_text is None:
            turns = [
                {"role": "user", "content": "question"},
                {"role": "assistant", "content": "", "tool_calls": [_CALL.as_dict()]},
            ]
            try:
                text = self._render(turns, [_TOOL])
            # Templates may raise anything; concatenating an object raises TypeError.
            except Exception:
                self._arguments_as_text = True
            else:
                self._arguments_as_text = str(dict(_CALL.arguments)) in text
        return self._arguments_as_text


def with_thought(thought: str, content: str) -> str:
    """Return an answer with its reasoning before it, as reasoning models write them."""
    return f"<think>\n{thought}\n</think>\n\n{content}"


def unsaid(turn: Message, text: str) -> str | None:
    """Return the first part of a turn that is missing in its rendering `text`, or None.

    Ignores white space; texts may be escaped as in JSON. Templates of reasoning models silently
    omit reasoning, and templates without tools omit calls.
    """
    said = _plain(text)
    place = 0
    for part in (turn.reasoning, *re.split(r"</?think>", turn.content)):
        found = _find(part, said, place)
        if found < 0:
            return part.strip()
        place = found
    for call in turn.tool_calls:
        for part in (call.name, *_leaves(call.arguments)):
            if _find(part, said, 0) < 0:
                return part
    return None


def omitted(turns: Sequence[Message], text: str) -> Message | None:
    """Return the first turn whose content is missing in a conversation's rendering, or None.

    Reasoning in answers is not looked for: templates leave that of earlier ones out. White space is
    ignored, and turns may come in another order, as some templates write the system message into
    the user's last turn. A text must occur as often as all turns together have it, so that a short
    message is not taken for said because another one contains it.
    """
    said = _plain(text)
    wanted = [_plain(without_reasoning(turn).content) for turn in turns]
    place = 0
    for content in wanted:
        place = said.find(content, place)
        if place < 0:
            break
        place += len(content)
    else:
        return _uncalled(turns, text)
    for turn, content in zip(turns, wanted, strict=True):
        if not content:
            continue
        forms = dict.fromkeys(_forms(content))
        times = sum(said.count(form) for form in forms)
        if times < sum(other.count(content) for other in wanted):
            return turn
    return _uncalled(turns, text)


def _uncalled(turns: Sequence[Message], text: str) -> Message | None:
    """Return the first turn with a tool call that is missing in the rendering, or None."""
    calling = (turn for turn in turns if turn.tool_calls)
    return next((t for t in calling if unsaid(replace(t, content="", reasoning=""), text)), None)


def _forms(part: str) -> tuple[str, str, str]:
    """Return a text as it is, and as JSON writes it."""
    return part, json.dumps(part, ensure_ascii=False)[1:-1], json.dumps(part)[1:-1]


def _find(part: str, said: str, start: int) -> int:
    """Return where `part` ends in `said` after `start`, or -1."""
    for form in _forms(part):
        wanted = _plain(form)
        at = said.find(wanted, start)
        if at >= 0:
            return at + len(wanted)
    return -1


def _plain(text: str) -> str:
    return " ".join(text.split())


def _leaves(value: Any) -> Iterator[str]:
    """Yield the keys and texts in plain data."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, inner in cast("Mapping[str, Any]", value).items():
            yield name
            yield from _leaves(inner)
    elif isinstance(value, (list, tuple)):
        for inner in cast("Sequence[Any]", value):
            yield from _leaves(inner)


def _reads(template: str, field: str) -> bool:
    """Whether a template reads a field of a message: `.name`, or `'name'`."""
    return re.search(rf"\.{field}\b|['\"]{field}['\"]", template) is not None
