"""`sharegpt`: {conversations: [{from, value}, ...], system?, tools?}."""

from __future__ import annotations

from etude.tuning.config.sections.data import DataSpec
from etude.tuning.data.formats.conversation import (
    CONVERSATIONS,
    conversation_sample,
)
from etude.tuning.data.formats.registry import DataFormat, FirstRow, Reader, register
from etude.tuning.data.messages import read_messages
from etude.tuning.data.schema import Sample
from etude.tuning.data.sources.registry import Row


def _recognize(first: FirstRow) -> int | None:
    return 60 if first.columns & set(CONVERSATIONS) else None


def _reader(spec: DataSpec) -> Reader:
    def read(row: Row) -> Sample:
        column = next((name for name in CONVERSATIONS if name in row.values), CONVERSATIONS[0])
        turns = read_messages(row, column, "data.format: sharegpt", speakers=True)
        return conversation_sample(turns, row, spec)

    return read


register(DataFormat("sharegpt", ("conversations",), _recognize, _reader))
