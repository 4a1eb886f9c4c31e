"""Verdict on a submission: kind, detail, and one sentence that explains it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Kind = Literal[
    "accepted",
    "wrong answer",
    "runtime error",
    "time limit",
    "memory limit",
    "output limit",
    "forbidden operation",
    "compile error",
    "system fault",
]
Detail = Literal[
    "",
    "type",
    "shape",
    "dtype",
    "not finite",
    "values",
    "mutated input",
    "not deterministic",
    "no exception",
    "unreadable",
]
FORM = 1


@dataclass(frozen=True)
class Line:
    """One line of the submission in a traceback."""

    line: int
    name: str
    code: str


@dataclass(frozen=True)
class Grid:
    """A window of an array, as rows of cells; of a vector, one row."""

    shape: list[int]
    kind: str
    """Type of its numbers: `torch.float32`, `NumPy int64`, `list`."""
    cells: list[list[str]]
    differs: list[list[bool]]
    """Which cells are not what they should be."""
    rows: list[int]
    """Indices of the rows shown; empty for fewer than two dimensions."""
    columns: list[int]
    slice: str
    """Which slice of more than two dimensions is shown, such as `[0, 3, :, :]`."""

    @property
    def cut(self) -> bool:
        """Return whether there is more than is shown."""
        shown = [len(self.rows), len(self.columns)][2 - min(len(self.shape), 2) :]
        return bool(self.slice) or (bool(self.cells) and shown != self.shape)


@dataclass(frozen=True)
class Part:
    """One array, or one other value, of an input or of an answer."""

    title: str
    """Empty for an answer that is one value."""
    expected: Grid | str | None = None
    """None for an input."""
    got: Grid | str | None = None
    differs: bool = False

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Part:
        """Return the part from plain data."""
        sides: dict[str, Any] = {
            side: Grid(**data[side]) if isinstance(data[side], dict) else data[side]
            for side in ("expected", "got")
        }
        return cls(**{**data, **sides})


@dataclass(frozen=True)
class Shown:
    """A visible test that failed: its input, the expected answer and the actual one."""

    arguments: list[str]
    expected: str
    got: str
    inputs: list[Part] = field(default_factory=list[Part])
    """The arguments, laid out; empty in verdicts of earlier versions."""
    parts: list[Part] = field(default_factory=list[Part])
    """The answer beside the expected one, laid out."""

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Shown:
        """Return the test from plain data."""
        laid_out: dict[str, Any] = {
            name: [Part.from_dict(part) for part in data.get(name, [])]
            for name in ("inputs", "parts")
        }
        return cls(**{**data, **laid_out})


@dataclass(frozen=True)
class Verdict:
    """Verdict on one submission."""

    kind: Kind
    detail: Detail = ""
    """For a wrong answer, the property that is wrong."""
    says: str = ""
    """Explanation in one sentence."""
    test: str = ""
    """Name of the first test that failed."""
    visible: bool = False
    note: str = ""
    """The author's note on this test."""
    concept: str = ""
    lines: list[Line] = field(default_factory=list[Line])
    """The learner's own lines of the traceback, outermost first."""
    shown: Shown | None = None
    failing: list[str] = field(default_factory=list[str])
    """Names of all failing tests, smallest input first."""
    smallest: Shown | None = None
    """The visible failure with the smallest input."""
    passed: int = 0
    total: int = 0
    printed: str = ""
    """Output of the visible tests."""
    seconds: float = 0.0
    """Wall time in the sandbox, in seconds."""
    peak_bytes: int = 0
    seed: int = 0
    isolation: str = ""
    form: int = FORM

    @property
    def accepted(self) -> bool:
        """Return whether the submission is correct."""
        return self.kind == "accepted"

    @property
    def name(self) -> str:
        """Return kind and detail as authors write them: `wrong answer: shape`."""
        return f"{self.kind}: {self.detail}" if self.detail else self.kind

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Verdict:
        """Return the verdict from the result of `to_dict`."""
        lines = [Line(**line) for line in data.get("lines", [])]
        shown = Shown.from_dict(data["shown"]) if data.get("shown") else None
        smallest = Shown.from_dict(data["smallest"]) if data.get("smallest") else None
        told: dict[str, Any] = {**data, "lines": lines, "shown": shown, "smallest": smallest}
        return cls(**told)
