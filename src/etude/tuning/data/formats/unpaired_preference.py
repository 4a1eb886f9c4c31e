"""`unpaired_preference`: {prompt, completion, label} or {messages, label}, for KTO.

Only the last answer is labelled, as desirable or not.
"""

from __future__ import annotations

from etude.core.errors import DataError
from etude.tuning.config.sections.data import DataSpec
from etude.tuning.data.columns import ABSENT, missing, shown, value_at
from etude.tuning.data.formats.conversation import prepared, prompt_turns, turns_at
from etude.tuning.data.formats.registry import DataFormat, FirstRow, Reader, register
from etude.tuning.data.messages import read_messages, read_tools
from etude.tuning.data.schema import Sample
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
    value = value_at(first.row.values, first.spec.label)
    answered = first.answered or "messages" in first.columns
    if _desirable(value) is None or not answered:
        return None
    if isinstance(value, bool) or (isinstance(value, str) and value.strip().lower() in _BOOLEANS):
        return 40
    # 1 and 0 are as often a class: as likely a prompt and an answer beside a label.
    return 50 if "messages" in first.columns else 80


_BOOLEANS = ("true", "false")


def _reader(spec: DataSpec) -> Reader:
    return lambda row: _unpaired(row, spec)


def _unpaired(row: Row, spec: DataSpec) -> Sample:
    label = value_at(row.values, spec.label)
    if label is ABSENT:
        raise missing(row, spec.label, "data.label")
    desirable = _desirable(label)
    if desirable is None:
        raise DataError(
            f"{row.origin}: column {spec.label!r} must say whether the answer is desirable (true, "
            f"false, 1 or 0), got {shown(label)}"
        )
    if value_at(row.values, spec.completion) is ABSENT and "messages" in row.values:
        turns = read_messages(row, "messages", "data.format: messages")
    else:
        answer = turns_at(row, spec.completion, "data.completion", "assistant")
        turns = (*prompt_turns(row, spec), *answer)
    turns = prepared(turns, row, spec)
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
