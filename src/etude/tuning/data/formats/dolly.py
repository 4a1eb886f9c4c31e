"""`dolly`: {instruction, context?, response}, Databricks Dolly's columns.

The context, where there is one, follows the instruction after an empty line.
"""

from __future__ import annotations

from etude.tuning.config.sections.data import DataSpec
from etude.tuning.data.columns import read_text
from etude.tuning.data.formats.conversation import (
    conversation_sample,
    joined_prompt,
    question_and_answer,
)
from etude.tuning.data.formats.registry import DataFormat, FirstRow, Reader, register
from etude.tuning.data.schema import Sample
from etude.tuning.data.sources.registry import Row

_KEY = "data.format: dolly"


def _recognize(first: FirstRow) -> int | None:
    return 71 if first.columns >= {"instruction", "response"} else None


def _reader(spec: DataSpec) -> Reader:
    def read(row: Row) -> Sample:
        prompt = joined_prompt(row, "instruction", "context", _KEY)
        answer = read_text(row, "response", _KEY)
        return conversation_sample(question_and_answer(prompt, answer), row, spec)

    return read


register(DataFormat("dolly", ("instruction", "response"), _recognize, _reader))
