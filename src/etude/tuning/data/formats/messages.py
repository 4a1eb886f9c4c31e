"""`messages`: {messages: [{role, content}, ...], tools?}, as OpenAI writes conversations."""

from __future__ import annotations

from etude.tuning.config.sections.data import DataSpec
from etude.tuning.data.formats.conversation import conversation_sample
from etude.tuning.data.formats.registry import DataFormat, FirstRow, Reader, register
from etude.tuning.data.messages import read_messages


def _recognize(first: FirstRow) -> int | None:
    return 50 if "messages" in first.columns else None


def _reader(spec: DataSpec) -> Reader:
    return lambda row: conversation_sample(
        read_messages(row, "messages", "data.format: messages"), row, spec
    )


register(DataFormat("messages", ("messages",), _recognize, _reader))
