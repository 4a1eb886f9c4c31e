"""What a row becomes: a conversation, a pair of answers, an unpaired preference, or plain text.

conversation   system, user, assistant, tool turns; the assistant's are learnt
pair           two conversations with one beginning, the first ending in the better answer
unpaired       a conversation, and whether its last answer is desirable
text           learnt whole, or put into a class by its label
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that an assistant's turn makes."""

    name: str
    arguments: Mapping[str, Any]
    id: str | None = None
    """What the turn with the tool's result refers to; some templates write it."""

    def as_dict(self) -> dict[str, Any]:
        """Return the form that chat templates take."""
        call: dict[str, Any] = {
            "type": "function",
            "function": {"name": self.name, "arguments": dict(self.arguments)},
        }
        return call if self.id is None else {"id": self.id, **call}


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str

    reasoning: str = ""
    """What the assistant thought first, where the data keep that in a field of its own."""

    tool_calls: tuple[ToolCall, ...] = ()
    """Calls of the assistant; they follow the content."""

    name: str | None = None
    """The tool whose result this is (`tool` turns)."""

    call_id: str | None = None
    """The call that this is the result of (`tool` turns)."""

    @property
    def is_empty(self) -> bool:
        """Whether the turn says nothing and calls nothing."""
        return not self.content.strip() and not self.tool_calls

    def as_dict(self) -> dict[str, Any]:
        """Return the form that chat templates take, reasoning left out."""
        fields: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.tool_calls:
            fields["tool_calls"] = [call.as_dict() for call in self.tool_calls]
        if self.name is not None:
            fields["name"] = self.name
        if self.call_id is not None:
            fields["tool_call_id"] = self.call_id
        return fields

    def canonical(self) -> str:
        """Return a text that is equal for turns equal but for surrounding white space."""
        extra = {**self.as_dict(), "reasoning": self.reasoning.strip()}
        del extra["content"]
        if extra == {"role": self.role, "reasoning": ""}:
            return f"\0{self.role}\0{self.content.strip()}"
        return f"\0{json.dumps(extra, sort_keys=True)}\0{self.content.strip()}"


@dataclass(frozen=True, slots=True)
class Sample:
    """A conversation whose assistant turns are learnt, or a text that is learnt whole."""

    messages: tuple[Message, ...]
    """Of a pair, the conversation that ends in the better answer. Empty where `text` is given."""

    text: str | None
    """None where `messages` is given."""

    origin: str
    """Where it was read, as in `train.jsonl:12`."""

    tools: tuple[Mapping[str, Any], ...] = ()
    """What the model may call: `{"type": "function", "function": {name, parameters, ...}}`."""

    rejected: tuple[Message, ...] = ()
    """Of a pair, the conversation that ends in the worse answer; else empty."""

    desirable: bool | None = None
    """Of an unpaired preference, whether it is desirable; else None."""

    label: str | None = None
    """Of a text that is classified, the name of its class."""

    context: int = 0
    """Turns at the beginning that are never learnt: what the answers of a pair share, or what
    comes before an unpaired preference."""

    @classmethod
    def conversation(cls, *turns: tuple[Role, str], origin: str) -> Sample:
        """Build a sample from (role, content) pairs."""
        return cls(tuple(Message(role, content) for role, content in turns), None, origin)

    @classmethod
    def plain(cls, text: str, origin: str) -> Sample:
        """Build a sample of plain text."""
        return cls((), text, origin)

    def sides(self) -> tuple[Sample, ...]:
        """Return the conversations it is made of: two of a pair, the better first, else one."""
        if not self.rejected:
            return (self,)
        better = replace(self, rejected=())
        return better, replace(better, messages=self.rejected)


@dataclass(frozen=True)
class DataSplit:
    """Samples to train on and samples held out; no sample of one has its equal in the other."""

    train: Sequence[Sample]
    eval: Sequence[Sample]
    notes: list[str] = field(default_factory=list[str])
    """What a reader of the report should know: rows left out, repeats, how the split was made."""
