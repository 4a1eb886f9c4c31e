"""`input_output`: {input, output}, a prompt and its answer."""

from __future__ import annotations

from etude.tuning.config.sections.data import DataSpec
from etude.tuning.data.columns import read_text
from etude.tuning.data.formats.conversation import conversation_sample, question_and_answer
from etude.tuning.data.formats.registry import DataFormat, FirstRow, Reader, register
from etude.tuning.data.schema import Sample
from etude.tuning.data.sources.registry import Row

_KEY = "data.format: input_output"


def _recognize(first: FirstRow) -> int | None:
    if "instruction" in first.columns or not first.columns >= {"input", "output"}:
        return None
    return 80  # beside a prompt and a completion, a question to the person


def _reader(spec: DataSpec) -> Reader:
    def read(row: Row) -> Sample:
        turns = question_and_answer(read_text(row, "input", _KEY), read_text(row, "output", _KEY))
        return conversation_sample(turns, row, spec)

    return read


register(DataFormat("input_output", ("input", "output"), _recognize, _reader))
