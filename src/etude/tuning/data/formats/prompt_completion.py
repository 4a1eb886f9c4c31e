"""`prompt_completion`: two columns, or templates such as "Question: {question}".

Either may be a list of turns; answers in the prompt are context, and those of the completion are
trained. A completion that is a list of texts has several references; inside a template, and for the
prompt, a list of texts is joined.
"""

from __future__ import annotations

from dataclasses import replace

from etude.core.errors import DataError
from etude.core.json_text import text_list
from etude.tuning.config.sections.data import DataSpec
from etude.tuning.data.columns import checked, columns_of, field_reader, value_at
from etude.tuning.data.formats.conversation import conversation_sample, turns_at
from etude.tuning.data.formats.registry import DataFormat, FirstRow, Reader, register
from etude.tuning.data.schema import Message, Sample
from etude.tuning.data.sources.registry import Row


def _recognize(first: FirstRow) -> int | None:
    if first.named & {"prompt", "completion"}:
        # The person named the columns; should one be missing, the row's own error says which.
        return 30
    return 80 if first.answered else None


def _reader(spec: DataSpec) -> Reader:
    for setting, key in ((spec.prompt, "data.prompt"), (spec.completion, "data.completion")):
        columns_of(setting, key)
    return lambda row: _answered(row, spec)


def _answered(row: Row, spec: DataSpec) -> Sample:
    if text_list(value_at(row.values, spec.prompt)) is None:
        prompt = turns_at(row, spec.prompt, "data.prompt", "user")
    else:
        prompt = (Message("user", field_reader(spec.prompt, "data.prompt")(row)),)
    answers = text_list(value_at(row.values, spec.completion))
    if answers is not None:
        where = f"{row.origin}: column {spec.completion!r}"
        references = tuple(dict.fromkeys(checked(answer, where) for answer in answers))
        sample = conversation_sample(
            (*prompt, Message("assistant", references[0])), row, spec, answered=1
        )
        return sample if len(references) == 1 else replace(sample, references=references)
    completion = turns_at(row, spec.completion, "data.completion", "assistant")
    if not any(turn.role == "assistant" for turn in completion):
        raise DataError(f"{row.origin}: {spec.completion!r} has no turn of the assistant")
    given = any(turn.role == "assistant" for turn in prompt)
    return conversation_sample(
        (*prompt, *completion), row, spec, answered=len(completion) if given else None
    )


register(DataFormat("prompt_completion", ("prompt", "completion"), _recognize, _reader))
