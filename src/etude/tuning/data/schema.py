"""Sample types: conversation, pair of answers, unpaired preference, plain text.

conversation   system, user, assistant, tool turns; the assistant's are trained
pair           two conversations with a common prompt, the first with the chosen answer
unpaired       a conversation, and whether its last answer is desirable
text           trained as a whole, or classified by its label
tagged words   a text with its words and a tag for each
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool call of an assistant's turn."""

    name: str
    arguments: Mapping[str, Any]
    id: str | None = None
    """Identifier that the tool's result refers to; some templates write it."""

    def as_dict(self) -> dict[str, Any]:
        """Return the form for chat templates."""
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
    """The assistant's reasoning, if the data have a separate field for it."""

    tool_calls: tuple[ToolCall, ...] = ()
    """Tool calls of the assistant, after the content."""

    name: str | None = None
    """Name of the tool with this result (`tool` turns)."""

    call_id: str | None = None
    """Identifier of the call with this result (`tool` turns)."""

    trained: bool = True
    """False: the data say that this answer is context (`weight: 0`, `train: false`)."""

    read: tuple[str, ...] = field(default=(), compare=False, repr=False)
    """Keys of the data that it was read from, in words; empty if it was made otherwise."""

    unread: tuple[str, ...] = field(default=(), compare=False, repr=False)
    """Keys of the data that nothing reads, in words."""

    @property
    def is_empty(self) -> bool:
        """Whether the turn has neither content nor calls."""
        return not self.content.strip() and not self.tool_calls

    def as_dict(self) -> dict[str, Any]:
        """Return the form for chat templates, without reasoning."""
        fields: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.tool_calls:
            fields["tool_calls"] = [call.as_dict() for call in self.tool_calls]
        if self.name is not None:
            fields["name"] = self.name
        if self.call_id is not None:
            fields["tool_call_id"] = self.call_id
        return fields

    def canonical(self) -> str:
        """Return a canonical text that ignores surrounding white space."""
        extra = {**self.as_dict(), "reasoning": self.reasoning.strip()}
        del extra["content"]
        if not self.trained:
            extra["trained"] = False
        if extra == {"role": self.role, "reasoning": ""}:
            return f"\0{self.role}\0{self.content.strip()}"
        return f"\0{json.dumps(extra, sort_keys=True)}\0{self.content.strip()}"


@dataclass(frozen=True, slots=True)
class RowFields:
    """Columns and message keys of a row, in words: which were read, and which were not."""

    read: tuple[str, ...]
    unread: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sample:
    """A conversation whose assistant turns are trained, or a plain text."""

    messages: tuple[Message, ...]
    """For a pair, the conversation with the chosen answer. Empty if `text` is given."""

    text: str | None
    """None if `messages` is given."""

    origin: str
    """Origin, such as `train.jsonl:12`."""

    tools: tuple[Mapping[str, Any], ...] = ()
    """Available tools: `{"type": "function", "function": {name, parameters, ...}}`."""

    rejected: tuple[Message, ...] = ()
    """For a pair, the conversation with the rejected answer; else empty."""

    desirable: bool | None = None
    """For an unpaired preference, whether it is desirable; else None."""

    pair: str | None = None
    """For classification of a pair, the second text."""

    label: str | tuple[str, ...] | None = None
    """For classification, the class name; with several labels, their names; or the number as it is
    written."""

    positive: str | None = None
    """For embeddings, a text that belongs with `text`."""

    negative: str | None = None
    """For embeddings, a text that does not belong with `text`."""
    references: tuple[str, ...] = ()
    """All answers of a row that has several, the one in `messages` first; else empty."""

    columns: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Further columns of the row that the evaluation reads, by name."""

    context: int = 0
    """Number of leading turns that are never trained: the common prompt of a pair or of an unpaired
    preference."""

    words: tuple[str, ...] = ()
    """For token classification, the words of `text`."""

    tags: tuple[str, ...] = ()
    """For token classification, the tag of each word, in the scheme of the data."""
    image: str | None = None
    """For an image, the path of its file; `text` is then the SHA-256 of the file."""

    fields: RowFields | None = field(default=None, compare=False, repr=False)
    """Of the row that it was read from; None if it was made otherwise."""

    @classmethod
    def conversation(cls, *turns: tuple[Role, str], origin: str) -> Sample:
        """Build a sample from (role, content) pairs."""
        return cls(tuple(Message(role, content) for role, content in turns), None, origin)

    @classmethod
    def plain(cls, text: str, origin: str) -> Sample:
        """Build a sample of plain text."""
        return cls((), text, origin)

    def sides(self) -> tuple[Sample, ...]:
        """Return its conversations: two for a pair, chosen first, else one."""
        if not self.rejected:
            return (self,)
        better = replace(self, rejected=())
        return better, replace(better, messages=self.rejected)


@dataclass(frozen=True)
class DataSplit:
    """Disjoint training and evaluation samples."""

    train: Sequence[Sample]
    eval: Sequence[Sample]
    notes: list[str] = field(default_factory=list[str])
    """Notes for the report: dropped rows, repeats, the method of the split."""
