"""Linter driver: reads data once and passes each row to every check."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from etude.core.errors import DataError, did_you_mean
from etude.core.progress import Progress, SilentProgress
from etude.tuning.config.sections.data import DataSpec
from etude.tuning.data.account import TRAILING, Account, accounted
from etude.tuning.data.check.answers import Answers, Labels
from etude.tuning.data.check.classes import (
    IMAGES,
    LABELLED,
    Classes,
    LabelledTokens,
    held_out_labelled,
)
from etude.tuning.data.check.encodings import Encodings
from etude.tuning.data.check.findings import Check, Entry, Finding, Severity, Side
from etude.tuning.data.check.languages import Languages
from etude.tuning.data.check.private import Secrets
from etude.tuning.data.check.repeats import Repeats
from etude.tuning.data.check.tags import Tags
from etude.tuning.data.check.tokens import Tokens
from etude.tuning.data.readers import reader_of
from etude.tuning.data.samples import ReaderFactory, split_samples
from etude.tuning.data.schema import Sample
from etude.tuning.data.sources.registry import (
    SOURCES,
    Row,
    SourceRow,
    SplitSource,
    UnreadableRow,
)

ORDER: tuple[Severity, ...] = ("error", "warning", "note")

CHECKS = {
    "tokens": "wrong-template rendered-twice doubled-start missing-end too-long not-trainable "
    "no-template split-marks unknown-tokens",
    "repeats": "duplicates near-duplicates overlap overlap-prompt overlap-near contradictions",
    "answers": "empty-answers empty-prompts role-order identical-pair given-away",
    "classes": "empty-texts mixed-labels one-class same-texts identifiers unseen-labels "
    "single-rows",
    "labels": "label-imbalance rare-labels label-spelling unseen-labels verdict-imbalance",
    "tags": "no-entities mixed-tags broken-tags unseen-types rare-types type-spelling",
    "encodings": "mojibake lost-characters control-characters invisible-characters "
    "direction-marks decomposed line-ends",
    "languages": "languages",
    "private": "private",
    "rows": "unreadable unread",
}
"""Families of checks and what they may find; `--only` and `--skip` take either."""


@dataclass(frozen=True)
class DataReport:
    """All that was found."""

    findings: list[Finding]
    """Errors first, then by the rows they are about."""

    rows: dict[str, int]
    """Rows checked, by side."""

    unreadable: dict[str, list[str]]
    """Rows that could not be read, by side, so that no check saw them."""

    account: Account = field(default_factory=Account)
    """Columns, keys of messages and turns: in which rows they were read, and in which not."""

    @property
    def rows_in(self) -> dict[str, int]:
        """Rows that the data have, by side, whether they could be read or not."""
        sides = dict.fromkeys((*self.rows, *self.unreadable))
        return {s: self.rows.get(s, 0) + len(self.unreadable.get(s, ())) for s in sides}

    def worst(self) -> Severity | None:
        """Return the gravest severity that was found."""
        return next((s for s in ORDER if any(f.severity == s for f in self.findings)), None)

    def as_json(self) -> dict[str, Any]:
        """Return plain data, every row number in it."""
        return {
            "rows_in": self.rows_in,
            "rows": self.rows,
            "unreadable": self.unreadable,
            "read": dict(self.account.read),
            "unread": {name: tally.count for name, tally in self.account.unread.items()},
            "findings": [{**asdict(found), "count": found.count} for found in self.findings],
        }


def known_check(name: str) -> str:
    """Return the name of a check or family, or refuse it.

    Raises:
        DataError: there is none, naming the nearest.
    """
    names = [*CHECKS, *(check for checks in CHECKS.values() for check in checks.split())]
    if name not in names:
        raise DataError(f"unknown check {name!r}{did_you_mean(name, names)}")
    return name


def check_data(
    spec: DataSpec,
    tokenizer: Any,
    seed: int = 0,
    *,
    task: str = "chat",
    only: Iterable[str] = (),
    skip: Iterable[str] = (),
    progress: Progress | None = None,
) -> DataReport:
    """Check the data of a recipe.

    Args:
        spec: where they are and how they are read.
        tokenizer: of the model to be tuned; None leaves out what needs one.
        seed: of the run, by which samples are held out.
        task: of the run, by which rows are read.
        only: checks or families to make; empty: all.
        skip: checks or families to leave out.
        progress: reports every row.

    Raises:
        DataError: a file is missing or of an unknown kind, or a check has no such name.
    """
    progress = progress or SilentProgress()
    if task == IMAGES:
        spec = spec.model_copy(update={"label_kind": "class"})
    chosen = {known_check(name) for name in only}
    passed = {known_check(name) for name in skip}

    def wanted(family: str, check: str) -> bool:
        names = {family, check}
        return not names & passed and (not chosen or bool(names & chosen))

    families: dict[str, Check] = {
        family: make()
        for family, make in _families(tokenizer, spec, task).items()
        if any(wanted(family, check) for check in CHECKS[family].split())
    }
    unreadable = Finding(
        "unreadable",
        "error",
        "rows that cannot be read as the recipe says",
        "a run would stop at the first of them",
    )
    entries, refused = read_entries(spec, seed, task)
    for row in refused:
        unreadable.add(row.origin, row.message)
    rows: Counter[str] = Counter()
    account = Account()
    unread: dict[str, Finding] = {}
    progress.start("Checking the data", len(entries), "rows")
    for entry in entries:
        rows[entry.side] += 1
        account.add(entry.sample)
        for name in entry.sample.fields.unread if entry.sample.fields else ():
            unread.setdefault(name, _unread(name)).add(entry.origin)
        for check in families.values():
            check.see(entry)
        progress.advance(1)
    progress.finish()
    findings = [unreadable] if unreadable.rows and wanted("rows", "unreadable") else []
    if wanted("rows", "unread"):
        findings += unread.values()
    for family, check in families.items():
        findings += [found for found in check.findings() if wanted(family, found.check)]
    findings.sort(key=lambda found: (ORDER.index(found.severity), -found.count))
    by_side: dict[str, list[str]] = {}
    for row in refused:
        by_side.setdefault(row.side, []).append(row.origin)
    for row in refused:
        account.refuse(row.origin, row.message)
    return DataReport(findings, dict(rows), by_side, account)


def _unread(name: str) -> Finding:
    if name == TRAILING:
        return Finding(
            "unread",
            "note",
            f"{name}: not read",
            "no answer follows them, so nothing is trained on them; end the rows with an answer",
        )
    advice = (
        "nothing reads it, so it is not in training; name it in the recipe if it matters "
        "(data.system_column, data.prompt, ...), or leave it"
        if name.startswith("column")
        else "nothing reads it, so it changes nothing; remove it, or leave it"
    )
    return Finding("unread", "note", f"{name}: not read", advice)


def _families(tokenizer: Any, spec: DataSpec, task: str) -> dict[str, Callable[[], Check]]:
    families: dict[str, Callable[[], Check]] = {
        "repeats": Repeats,
        "answers": Answers,
        "labels": Labels,
        "tags": Tags,
        "encodings": Encodings,
        "languages": Languages,
        "private": Secrets,
    }
    if task == IMAGES:
        # Texts are what the other checks are of.
        return {
            "repeats": Repeats,
            "labels": Labels,
            "classes": lambda: Classes(spec),
        }
    labelled = task == LABELLED
    if labelled:
        families["classes"] = lambda: Classes(spec)
    if tokenizer is not None:
        tokens = LabelledTokens if labelled else Tokens
        families["tokens"] = lambda: tokens(tokenizer, spec)
    return families


@dataclass(frozen=True)
class RefusedRow:
    """A row that is no sample."""

    origin: str
    side: Side
    message: str


def read_entries(
    spec: DataSpec, seed: int, task: str = "chat"
) -> tuple[list[Entry], list[RefusedRow]]:
    """Read all samples, evaluation first, with the rows they came from, and what was no sample.

    Every row of the data is in one of the two lists.

    Raises:
        DataError: a file is missing, or not of the kind that its name says.
    """
    source = SOURCES[spec.kind]
    if isinstance(source, SplitSource):
        split = source.split(spec, seed)
        return [
            *(Entry(sample, "eval", None) for sample in split.eval),
            *(Entry(sample, "train", None) for sample in split.train),
        ], []
    rows = source.rows(spec)
    reader = reader_of(task)
    train, refused = _entries(rows.train, spec, "train", reader)
    if rows.eval is not None:
        held, refused_held = _entries(rows.eval, spec, "eval", reader)
        return [*held, *train], [*refused_held, *refused]
    whole = spec.every_row()
    if not train or spec.eval_fraction == 0:
        return train, refused
    if task in (LABELLED, IMAGES):
        out = held_out_labelled([entry.sample for entry in train], spec, seed)
        held_out = [Entry(e.sample, "eval", e.row) for i, e in enumerate(train) if i in out]
        rest = [entry for i, entry in enumerate(train) if i not in out]
        return [*held_out, *rest], refused
    split = split_samples((entry.sample for entry in train), None, whole, seed)
    held = {sample.origin for sample in split.eval}
    held_out = [Entry(e.sample, "eval", e.row) for e in train if e.origin in held]
    return [*held_out, *(entry for entry in train if entry.origin not in held)], refused


def _entries(
    rows: Iterator[SourceRow], spec: DataSpec, side: Side, reader: ReaderFactory
) -> tuple[list[Entry], list[RefusedRow]]:
    read: Callable[[Row], Sample] | None = None
    entries: list[Entry] = []
    refused: list[RefusedRow] = []
    for row in rows:
        if isinstance(row, UnreadableRow):
            refused.append(RefusedRow(row.origin, side, row.message))
            continue
        try:
            read = read or accounted(reader(spec, row))
            entries.append(Entry(read(row), side, row))
        except DataError as error:
            refused.append(RefusedRow(row.origin, side, str(error)))
    return entries, refused
