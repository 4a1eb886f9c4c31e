"""Rewriting of training data with safe corrections.

Safe is what loses nothing that anybody meant: copies, rows of the evaluation, rows whose answer is
empty, mojibake that undoes without rest, control characters, line ends, composed letters. The file
that was read is never written to.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

from etude.core.atomic_files import disk_reason, replace_bytes
from etude.core.errors import DataError
from etude.tuning.config.sections.data import DataSpec
from etude.tuning.data.check.encodings import repaired
from etude.tuning.data.check.linter import DataReport, read_entries
from etude.tuning.data.sources.registry import SOURCES, SplitSource

_DROPS = {
    "overlap": "rows that are in the evaluation data",
    "duplicates": "copies of earlier rows",
    "empty-answers": "rows with an empty answer",
}
_UNREADABLE = "rows that cannot be read"
_NOT_JSON = "rows with a value that JSON cannot hold"


@dataclass
class FixReport:
    """What came in, what was written and what was not, by row."""

    rows_in: int = 0
    """Training rows of the data."""

    rows_out: int = 0
    """Rows written."""

    left_out: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    """Rows that were not written, by reason."""

    repaired: list[str] = field(default_factory=list[str])
    """Rows written with other characters than they had."""

    def leave_out(self, reason: str, origin: str) -> None:
        """Count a row that is not written."""
        self.left_out.setdefault(reason, []).append(origin)

    def as_json(self) -> dict[str, Any]:
        """Return plain data, every row number in it."""
        return asdict(self)


def check_output(spec: DataSpec, output: Path) -> None:
    """Refuse to write what cannot be written, or over what is read.

    Raises:
        DataError: the data are no rows, or `output` is one of their files.
    """
    if isinstance(SOURCES[spec.kind], SplitSource):
        raise DataError(f"{spec.kind} are read from packages; there is no file of rows to write")
    files = [*spec.train_files, *spec.eval_files]
    named = [Path(name).expanduser() for file in files for name in file.paths]
    if output.resolve() in [path.resolve() for path in named]:
        raise DataError(f"{output} is an input file; name another file")


def write_fixed(
    spec: DataSpec, report: DataReport, output: Path, seed: int = 0, task: str = "chat"
) -> FixReport:
    """Write the training rows as JSONL, put right as far as is safe.

    Args:
        spec: the data that were checked.
        report: what was found; what `--only` or `--skip` left out is not put right.
        output: file to write.
        seed: as for the check.
        task: as for the check.

    Returns:
        What became of each row.

    Raises:
        DataError: the rows are no rows of a file, or the file cannot be written.
    """
    check_output(spec, output)
    wanted = {found.check for found in report.findings if found.fix is not None}
    dropped = {
        row: _DROPS[found.check]
        for found in report.findings
        if found.check in _DROPS
        for row in found.rows
    }
    repairs = bool(wanted - set(_DROPS))
    done = FixReport()
    lines: list[bytes] = []
    # Nothing held out by share: the rows stay in the order of the file.
    whole = spec.model_copy(update={"eval_fraction": 0.0})
    entries, refused = read_entries(whole, seed, task)
    for row in refused:
        if row.side == "train":
            done.leave_out(_UNREADABLE, row.origin)
    for entry in entries:
        if entry.row is None or entry.side == "eval":
            continue
        if reason := dropped.get(entry.origin):
            done.leave_out(reason, entry.origin)
            continue
        values: Any = _repaired(entry.row.values) if repairs else entry.row.values
        line = _line(values)
        if line is None:
            done.leave_out(_NOT_JSON, entry.origin)
            continue
        lines.append(line)
        if repairs and _line(entry.row.values) != line:
            done.repaired.append(entry.origin)
    done.rows_out = len(lines)
    done.rows_in = len(lines) + sum(map(len, done.left_out.values()))
    if not lines and _NOT_JSON in done.left_out:
        raise DataError(
            f"{done.left_out[_NOT_JSON][0]}: a column is of a kind that JSON cannot hold"
        )
    try:
        replace_bytes(output, b"".join(lines))
    except OSError as error:
        raise DataError(
            f"cannot write {output}: {disk_reason(error)}; the data that were read are unchanged"
        ) from None
    return done


def _line(values: Any) -> bytes | None:
    """Return a row as a line of JSON, None where it cannot be written so."""
    try:
        return json.dumps(values, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:  # half a character, in a column that is not read
        return json.dumps(values).encode() + b"\n"
    except (TypeError, ValueError):
        return None


def _repaired(value: Any) -> Any:
    if isinstance(value, str):
        return repaired(value)
    if isinstance(value, Mapping):
        return {k: _repaired(v) for k, v in cast("Mapping[str, Any]", value).items()}
    if isinstance(value, list):
        return [_repaired(v) for v in cast("list[Any]", value)]
    return value
