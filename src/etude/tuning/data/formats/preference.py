"""`preference`: {prompt, chosen, rejected}, texts or lists of turns; or two conversations.

What the two conversations share at the beginning is the prompt.
"""

from __future__ import annotations

from typing import Any

from etude.core.errors import DataError
from etude.tuning.config.sections.data import DataSpec
from etude.tuning.data.columns import missing, read_text
from etude.tuning.data.formats.conversation import prepared, prompt_turns
from etude.tuning.data.formats.registry import DataFormat, FirstRow, Reader, register
from etude.tuning.data.messages import common_turns, messages_of, read_tools
from etude.tuning.data.schema import Message, Sample
from etude.tuning.data.sources.registry import Row


def _recognize(first: FirstRow) -> int | None:
    there = {first.spec.chosen, first.spec.rejected} <= first.columns
    return 10 if there or first.named & {"chosen", "rejected"} else None


def _reader(spec: DataSpec) -> Reader:
    return lambda row: _pair(row, spec)


def _pair(row: Row, spec: DataSpec) -> Sample:
    for column, key in ((spec.chosen, "data.chosen"), (spec.rejected, "data.rejected")):
        if column not in row.values:
            raise missing(row, column, key)
    chosen, rejected = (
        prepared(_side(row, column, spec), spec) for column in (spec.chosen, spec.rejected)
    )
    shared = common_turns(chosen, rejected)
    if shared == 0:
        raise DataError(
            f"{row.origin}: {spec.chosen!r} and {spec.rejected!r} begin differently; both must "
            "answer the same prompt"
        )
    # Equal answers share all their turns: the last of them is what would be compared.
    shared = min(shared, len(chosen) - 1, len(rejected) - 1)
    for column, turns in ((spec.chosen, chosen), (spec.rejected, rejected)):
        if not any(turn.role == "assistant" for turn in turns[shared:]):
            raise DataError(f"{row.origin}: {column!r} has no answer after what both share")
    tools = read_tools(row, spec.tools)
    return Sample(chosen, None, row.origin, tools=tools, rejected=rejected, context=shared)


def _side(row: Row, column: str, spec: DataSpec) -> tuple[Message, ...]:
    """Return the whole conversation that one column of a pair ends."""
    value: Any = row.values[column]
    listed: Any = [value] if isinstance(value, dict) else value
    if not isinstance(listed, (list, tuple)):
        answer = Message("assistant", read_text(row, column, f"data.{column}"))
        return (*prompt_turns(row, spec), answer)
    turns = messages_of(listed, f"{row.origin}: ", column, speakers=True)
    if turns[0].role == "assistant":
        return (*prompt_turns(row, spec), *turns)
    prompt: Any = row.values.get(spec.prompt)
    if isinstance(prompt, (list, tuple)) and prompt:
        before = prompt_turns(row, spec)
        return turns if turns[: len(before)] == before else (*before, *turns)
    return turns


register(DataFormat("preference", ("prompt", "chosen", "rejected"), _recognize, _reader))
