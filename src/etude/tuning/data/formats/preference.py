"""`preference`: {prompt, chosen, rejected}, texts or lists of turns; or two conversations.

What the two conversations share at the beginning is the prompt.
"""

from __future__ import annotations

from etude.core.errors import DataError
from etude.tuning.config.sections.data import DataSpec
from etude.tuning.data.columns import ABSENT, missing, value_at
from etude.tuning.data.formats.conversation import prepared, prompt_turns, turns_at
from etude.tuning.data.formats.registry import DataFormat, FirstRow, Reader, register
from etude.tuning.data.messages import common_turns, read_tools
from etude.tuning.data.schema import Message, Sample
from etude.tuning.data.sources.registry import Row


def _recognize(first: FirstRow) -> int | None:
    there = first.has(first.spec.chosen, first.spec.rejected)
    return 10 if there or first.named & {"chosen", "rejected"} else None


def _reader(spec: DataSpec) -> Reader:
    return lambda row: _pair(row, spec)


def _pair(row: Row, spec: DataSpec) -> Sample:
    for column, key in ((spec.chosen, "data.chosen"), (spec.rejected, "data.rejected")):
        if value_at(row.values, column) is ABSENT:
            raise missing(row, column, key)
    chosen, rejected = (
        prepared(_side(row, column, spec), row, spec) for column in (spec.chosen, spec.rejected)
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
    turns = turns_at(row, column, f"data.{column}", "assistant")
    if turns[0].role == "assistant":
        return (*prompt_turns(row, spec), *turns)
    prompt = value_at(row.values, spec.prompt)
    if isinstance(prompt, (list, tuple)) and prompt:
        before = prompt_turns(row, spec)
        return turns if turns[: len(before)] == before else (*before, *turns)
    return turns


register(DataFormat("preference", ("prompt", "chosen", "rejected"), _recognize, _reader))
