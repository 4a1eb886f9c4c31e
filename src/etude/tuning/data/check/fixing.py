"""Writing the training data anew, with what can be put right safely put right.

Safe is what loses nothing that anybody meant: copies, rows of the evaluation, rows whose answer is
empty, mojibake that undoes without rest, control characters, line ends, composed letters. The file
that was read is never written to.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from etude.core.atomic_files import replace_text
from etude.core.errors import DataError
from etude.tuning.config.sections.data import DataSpec
from etude.tuning.data.check.encodings import repaired
from etude.tuning.data.check.findings import Entry, Finding
from etude.tuning.data.check.linter import DataReport, read_entries

_DROPS = {
    "overlap": "rows that are in the evaluation data",
    "duplicates": "copies of earlier rows",
    "empty-answers": "rows with an empty answer",
}


def write_fixed(spec: DataSpec, report: DataReport, output: Path, seed: int = 0) -> dict[str, int]:
    """Write the training rows as JSONL, put right as far as is safe.

    Args:
        spec: the data that were checked.
        report: what was found; what `--only` or `--skip` left out is not put right.
        output: file to write.
        seed: as for the check.

    Returns:
        What was done, and to how many rows.

    Raises:
        DataError: the rows are no rows of a file, or the file cannot be written.
    """
    if spec.kind == "docstrings":
        raise DataError("docstrings are read from packages; there is no file of rows to write")
    if spec.train is not None and output.resolve() == Path(spec.train).resolve():
        raise DataError(f"{output} is what was read; name another file")
    wanted = {found.check for found in report.findings if found.fix is not None}
    dropped = {
        row: _DROPS[found.check]
        for found in report.findings
        if found.check in _DROPS
        for row in found.rows
    }
    repairs = bool(wanted - set(_DROPS))
    done: Counter[str] = Counter()
    lines: list[str] = []
    # Nothing held out by share: the rows stay in the order of the file.
    whole = spec.model_copy(update={"eval_fraction": 0.0})
    for entry in read_entries(whole, seed, Finding("", "note", "", "")):
        if entry.row is None or entry.side == "eval":
            continue
        if reason := dropped.get(entry.origin):
            done[reason] += 1
            continue
        values: Any = entry.row.values
        if repairs:
            values = _repaired(values)
            done["rows whose characters were put right"] += values != entry.row.values
        lines.append(_line(values, entry))
    try:
        replace_text(output, "".join(lines))
    except OSError as error:
        raise DataError(f"cannot write {output}: {error.strerror}") from None
    done["rows written"] = len(lines)
    return {what: count for what, count in done.items() if count}


def _line(values: Any, entry: Entry) -> str:
    try:
        return json.dumps(values, ensure_ascii=False) + "\n"
    except (TypeError, ValueError):
        raise DataError(f"{entry.origin}: a column is of a kind that JSON cannot hold") from None


def _repaired(value: Any) -> Any:
    if isinstance(value, str):
        return repaired(value)
    if isinstance(value, Mapping):
        return {k: _repaired(v) for k, v in cast("Mapping[str, Any]", value).items()}
    if isinstance(value, list):
        return [_repaired(v) for v in cast("list[Any]", value)]
    return value
