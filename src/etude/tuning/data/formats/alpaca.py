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
from etude.tuning.data.formats.conversation import (
    conversation_sample,
    joined_prompt,
    question_and_answer,
)
from etude.tuning.data.formats.registry import DataFormat, FirstRow, Reader, register
from etude.tuning.data.schema import Message
from etude.tuning.data.sources.registry import Row


def _recognize(first: FirstRow) -> int | None:
    return 70 if first.columns >= {"instruction", "output"} else None


def _reader(spec: DataSpec) -> Reader:
    return lambda row: conversation_sample(_turns(row), row, spec)


def _turns(row: Row) -> tuple[Message, ...]:
    key = "data.format: alpaca"
    prompt = joined_prompt(row, "instruction", "input", key)
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


register(DataFormat("alpaca", ("instruction", "output"), _recognize, _reader))
