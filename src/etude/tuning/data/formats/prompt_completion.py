"""`prompt_completion`: two columns, or templates such as "Question: {question}".

A column of answers that holds a list of texts has several references; inside a template, and for
the prompt, a list of texts is joined.
"""

from __future__ import annotations

from dataclasses import replace

from etude.tuning.config.sections.data import DataSpec
from etude.tuning.data.columns import checked, field_reader, text_list
from etude.tuning.data.formats.conversation import conversation_sample, question_and_answer
from etude.tuning.data.formats.registry import DataFormat, FirstRow, Reader, register
from etude.tuning.data.schema import Sample
from etude.tuning.data.sources.registry import Row


def _recognize(first: FirstRow) -> int | None:
    if first.named & {"prompt", "completion"}:
        # The person named the columns; should one be missing, the row's own error says which.
        return 30
    return 80 if first.asked <= first.columns else None


def _reader(spec: DataSpec) -> Reader:
    prompt = field_reader(spec.prompt, "data.prompt")
    completion = field_reader(spec.completion, "data.completion")

    def read(row: Row) -> Sample:
        answers = text_list(row.values.get(spec.completion))
        if answers is None:
            turns = question_and_answer(prompt(row), completion(row))
            return conversation_sample(turns, row, spec)
        where = f"{row.origin}: column {spec.completion!r}"
        references = tuple(dict.fromkeys(checked(answer, where) for answer in answers))
        turns = question_and_answer(prompt(row), references[0])
        sample = conversation_sample(turns, row, spec)
        return sample if len(references) == 1 else replace(sample, references=references)

    return read


register(DataFormat("prompt_completion", ("prompt", "completion"), _recognize, _reader))
