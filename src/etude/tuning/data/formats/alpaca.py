"""`alpaca`: {instruction, input?, output, system?, history?}, Stanford Alpaca's columns.

The input, where there is one, follows the instruction after an empty line (Taori et al. 2023).
`history`, a list of earlier [instruction, answer], and `system` are columns of some of its
successors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from etude.core.errors import DataError
from etude.tuning.config.sections.data import DataSpec
from etude.tuning.data.columns import read_text, shown
from etude.tuning.data.formats.conversation import conversation_sample, question_and_answer
from etude.tuning.data.formats.registry import DataFormat, FirstRow, Reader, register
from etude.tuning.data.schema import Message
from etude.tuning.data.sources.registry import Row


def _recognize(first: FirstRow) -> int | None:
    return 70 if first.columns >= {"instruction", "output"} else None


def _reader(spec: DataSpec) -> Reader:
    return lambda row: conversation_sample(_turns(row), row, spec)


def _turns(row: Row) -> tuple[Message, ...]:
    key = "data.format: alpaca"
    instruction = _text_or_empty(row, "instruction", key)
    extra = _text_or_empty(row, "input", key) if "input" in row.values else ""
    prompt = "\n\n".join(part for part in (instruction, extra) if part.strip())
    if not prompt:
        raise DataError(f"{row.origin}: 'instruction' and 'input' are both empty")
    turns: list[Message] = []
    earlier = cast("Sequence[Any]", row.values.get("history") or ())
    for number, entry in enumerate(earlier, start=1):
        texts = cast("Sequence[Any]", entry if isinstance(entry, (list, tuple)) else ())
        if len(texts) != 2 or not all(isinstance(text, str) for text in texts):
            raise DataError(
                f"{row.origin}: history {number} must be [instruction, answer], got {shown(entry)}"
            )
        turns += question_and_answer(texts[0], texts[1])
    answer = read_text(row, "output", key)
    return (*turns, *question_and_answer(prompt, answer))


def _text_or_empty(row: Row, column: str, key: str) -> str:
    if column in row.values and row.values[column] is None:
        return ""
    return read_text(row, column, key)


register(DataFormat("alpaca", ("instruction", "output"), _recognize, _reader))
