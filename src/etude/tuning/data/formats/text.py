"""`text`: a column of plain text, learnt whole."""

from __future__ import annotations

from etude.tuning.config.sections.data import DataSpec
from etude.tuning.data.columns import read_text
from etude.tuning.data.formats.registry import DataFormat, FirstRow, Reader, register
from etude.tuning.data.schema import Sample


def _recognize(first: FirstRow) -> int | None:
    return 90 if first.has(first.spec.text) or "text" in first.named else None


def _reader(spec: DataSpec) -> Reader:
    return lambda row: Sample.plain(read_text(row, spec.text, "data.text"), row.origin)


register(DataFormat("text", ("text",), _recognize, _reader))
