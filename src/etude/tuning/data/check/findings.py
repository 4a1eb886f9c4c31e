"""Interface of data checks: entries and findings.

Every check receives each entry in turn and stores what it needs, so that data are read once and
the cost of a check grows with the rows, never with their square.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, Protocol

from etude.tuning.data.schema import Sample
from etude.tuning.data.sources.registry import Row

Severity = Literal["error", "warning", "note"]
Side = Literal["train", "eval"]

EXAMPLES = 3
"""Examples kept of a finding; all row numbers are."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One sample with its origin and its row."""

    sample: Sample
    side: Side
    row: Row | None
    """None where samples are made otherwise (docstrings)."""

    @property
    def origin(self) -> str:
        """File and line."""
        return self.sample.origin

    @property
    def prompt(self) -> str:
        """All that comes before the last answer, as one text."""
        if self.sample.label is not None:
            return "\n".join(self.texts)
        turns = self.sample.messages[: self.last_answer]
        return "\n".join(turn.content for turn in turns if turn.role != "system")

    @property
    def last_answer(self) -> int:
        """Place of the last trained turn of the assistant, or the number of turns."""
        turns = self.sample.messages
        places = [n for n, turn in enumerate(turns) if turn.role == "assistant" and turn.trained]
        return places[-1] if places else len(turns)

    @property
    def answers(self) -> list[str]:
        """What is learnt: every answer, both of a pair, or the text; the label of one."""
        sample = self.sample
        if sample.label is not None:
            return [str(sample.label)]
        if sample.text is not None:
            return [sample.text]
        found = [
            turn.content
            for turn in sample.messages[sample.context :]
            if turn.role == "assistant" and turn.trained
        ]
        if sample.rejected:
            found.append(sample.rejected[-1].content)
        return found

    @property
    def texts(self) -> list[str]:
        """Every text of it, what is learnt and what is context."""
        sample = self.sample
        if sample.text is not None:
            return [sample.text, *([] if sample.pair is None else [sample.pair])]
        return [turn.content for turn in (*sample.messages, *sample.rejected[-1:])]


@dataclass
class Finding:
    """A problem found by a check, over all rows."""

    check: str
    """The check's name, for `--only` and `--skip`."""

    severity: Severity
    """`error`: the run would be ruined or fail. `warning`: likely worse for it. `note`: know it."""

    title: str
    """Title of the problem."""

    advice: str
    """Its effect on a run, and the remedy."""

    rows: list[str] = field(default_factory=list[str])
    """Where, as in `train.jsonl:12`, in order of the data."""

    examples: list[str] = field(default_factory=list[str])
    """The first of them in words, secrets masked."""

    fix: str | None = None
    """The correction by `--fix`; None: to be fixed by the user."""

    @property
    def count(self) -> int:
        """How many rows it is about."""
        return len(self.rows)

    def add(self, origin: str, example: str = "") -> None:
        """Take in one more row; several faults of one row count once."""
        if self.rows and self.rows[-1] == origin:
            return
        self.rows.append(origin)
        if example and len(self.examples) < EXAMPLES:
            self.examples.append(example)


class Check(Protocol):
    """One family of faults."""

    def see(self, entry: Entry) -> None:
        """Process an entry; evaluation entries come first."""
        ...

    def findings(self) -> Iterable[Finding]:
        """Return what was found, after the last entry."""
        ...


def excerpt(text: str, start: int = 0, width: int = 60) -> str:
    """Return a piece of a text for a message, on one line."""
    begin = max(0, start - width // 3)
    piece = " ".join(text[begin : begin + width].split())
    before = "…" if begin else ""
    return f"{before}{piece}{'…' if begin + width < len(text) else ''}"


def found(*findings: Finding) -> list[Finding]:
    """Return the findings that are about any row."""
    return [finding for finding in findings if finding.rows]
