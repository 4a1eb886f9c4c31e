"""`prompt_completion`: two columns, or templates such as "Question: {question}"."""

from __future__ import annotations

from etude.tuning.config.sections.data import DataSpec
from etude.tuning.data.columns import field_reader
from etude.tuning.data.formats.conversation import conversation_sample, question_and_answer
from etude.tuning.data.formats.registry import DataFormat, FirstRow, Reader, register


def _recognize(first: FirstRow) -> int | None:
    if first.named & {"prompt", "completion"}:
        # The person named the columns; should one be missing, the row's own error says which.
        return 30
    return 80 if first.asked <= first.columns else None


def _reader(spec: DataSpec) -> Reader:
    prompt = field_reader(spec.prompt, "data.prompt")
    completion = field_reader(spec.completion, "data.completion")
    return lambda row: conversation_sample(
        question_and_answer(prompt(row), completion(row)), row, spec
    )


register(DataFormat("prompt_completion", ("prompt", "completion"), _recognize, _reader))
