"""`unpaired_preference`: {prompt, completion, label} or {messages, label}, for KTO.

Only the last answer is labelled, as desirable or not.
"""

from __future__ import annotations

from typing import Any, cast

from etude.core.errors import DataError
from etude.tuning.config.sections.data import DataSpec
from etude.tuning.data.columns import field_reader, missing, shown
from etude.tuning.data.formats.conversation import prepared, prompt_turns
from etude.tuning.data.formats.registry import DataFormat, FirstRow, Reader, register
from etude.tuning.data.messages import messages_of, read_messages, read_tools
from etude.tuning.data.schema import Message, Sample
from etude.tuning.data.sources.registry import Row

_LABELS: dict[object, bool] = {
    True: True,
    False: False,
    **dict.fromkeys(("true", "1", "1.0", "yes"), True),
    **dict.fromkeys(("false", "0", "0.0", "no"), False),
}
"""What a label may be; 1 and 0 equal True and False."""


def _recognize(first: FirstRow) -> int | None:
    if "label" in first.named:
        return 20
    labelled = _desirable(first.row.values.get(first.spec.label)) is not None
    answered = first.asked <= first.columns or "messages" in first.columns
    return 40 if labelled and answered else None


def _reader(spec: DataSpec) -> Reader:
    return lambda row: _unpaired(row, spec)


def _unpaired(row: Row, spec: DataSpec) -> Sample:
    if spec.label not in row.values:
        raise missing(row, spec.label, "data.label")
    desirable = _desirable(row.values[spec.label])
    if desirable is None:
        raise DataError(
            f"{row.origin}: column {spec.label!r} must say whether the answer is desirable (true, "
            f"false, 1 or 0), got {shown(row.values[spec.label])}"
        )
    completion: Any = row.values.get(spec.completion)
    if spec.completion not in row.values and "messages" in row.values:
        turns = read_messages(row, "messages", "data.format: messages")
    elif isinstance(completion, (list, tuple, dict)):
        listed = cast("Any", [completion] if isinstance(completion, dict) else completion)
        answer = messages_of(listed, f"{row.origin}: ", spec.completion, speakers=True)
        turns = (*prompt_turns(row, spec), *answer)
    else:
        answered = field_reader(spec.completion, "data.completion")(row)
        turns = (*prompt_turns(row, spec), Message("assistant", answered))
    turns = prepared(turns, spec)
    last = max((n for n, turn in enumerate(turns) if turn.role == "assistant"), default=None)
    if last is None:
        raise DataError(f"{row.origin}: there is no answer that the label could be of")
    tools = read_tools(row, spec.tools)
    return Sample(turns, None, row.origin, tools=tools, desirable=desirable, context=last)


def _desirable(value: object) -> bool | None:
    """Return what a label says, None where it says nothing of the kind."""
    key = value.strip().lower() if isinstance(value, str) else value
    try:
        return _LABELS.get(key)
    except TypeError:  # a list or an object
        return None


register(DataFormat("unpaired_preference", ("prompt", "completion", "label"), _recognize, _reader))
