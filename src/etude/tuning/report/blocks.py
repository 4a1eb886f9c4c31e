"""Blocks of a report's section on results: tables, charts, heatmaps, texts, with one look.

A task stores plain data under a name in `details.json`; `report/details` turns each name into
blocks; the template draws them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from etude.tuning.report.chart import Chart


@dataclass(frozen=True)
class Table:
    """A table; its first column names the rows."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    best: frozenset[tuple[int, int]] = frozenset()
    """(row, column) of the cells to emphasise."""
    shown: int = 20
    """Rows that are shown at first; the rest are collapsed."""
    left: frozenset[int] = frozenset()
    """Columns of text, aligned on the left."""
    wraps: frozenset[int] = frozenset()
    """Columns of long texts, which are broken into lines."""
    kind: Literal["table"] = "table"


@dataclass(frozen=True)
class Plot:
    """A chart beside others, or across the page."""

    chart: Chart
    note: str = ""
    wide: bool = False
    kind: Literal["plot"] = "plot"


@dataclass(frozen=True)
class Cell:
    """A cell of a heatmap."""

    text: str
    """Shown inside; empty where there is no room."""
    title: str
    """Shown on pointing at the cell, and read aloud."""
    shade: float
    """0 to 1."""
    wrong: bool = False
    """Shaded in the colour of errors."""


@dataclass(frozen=True)
class Heatmap:
    """A matrix of shaded cells, rows against columns: a confusion matrix."""

    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    cells: Sequence[Sequence[Cell]]
    row_title: str
    column_title: str
    note: str = ""
    kind: Literal["heatmap"] = "heatmap"


@dataclass(frozen=True)
class Marked:
    """A piece of a text."""

    text: str
    label: str = ""
    """What the piece is; empty for text that is not marked."""
    wrong: bool = False
    """Marked in the colour of errors."""


@dataclass(frozen=True)
class MarkedText:
    """A text in several versions, side by side, with pieces marked in each."""

    origin: str
    versions: Sequence[tuple[str, Sequence[Marked]]]
    """Title and pieces of each."""


@dataclass(frozen=True)
class MarkedTexts:
    """Texts with marked pieces: entities of sentences."""

    title: str
    texts: Sequence[MarkedText]
    note: str = ""
    shown: int = 6
    """Texts that are shown at first; the rest are collapsed."""
    kind: Literal["texts"] = "texts"


@dataclass(frozen=True)
class Picture:
    """A small picture with a line on it."""

    source: str
    """A data URI: a report loads nothing."""
    caption: str
    origin: str


@dataclass(frozen=True)
class Pictures:
    """Pictures side by side."""

    title: str
    pictures: Sequence[Picture]
    note: str = ""
    kind: Literal["pictures"] = "pictures"


@dataclass(frozen=True)
class Remark:
    """A sentence that stands out: what a reader of the results should know first."""

    text: str
    kind: Literal["remark"] = "remark"


Block = Table | Plot | Heatmap | MarkedTexts | Pictures | Remark
