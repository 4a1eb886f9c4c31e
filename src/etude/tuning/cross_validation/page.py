"""The page of a cross-validation: folds.html, made from the folds' own files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from etude.core import units as q
from etude.tuning.cross_validation.results import Division, Fold, Spread, read_folds, spreads
from etude.tuning.report.blocks import Table
from etude.tuning.report.html import render_page
from etude.tuning.report.sections import Figure
from etude.tuning.runs.folder import RunFolder

STATES = {None: "not begun", "finished": "finished", "stopped": "stopped", "killed": "killed"}

EXPLAINED = (
    "The interval is that of the mean over the folds, with the correction of Nadeau and Bengio "
    "(2003) for the training data that the folds share. It is about other data of the same kind, "
    "divided as these were."
)


def write_folds_report(folder: RunFolder) -> None:
    """Write folds.html.

    Raises:
        RunError: a file of a fold is damaged, or the page cannot be written.
    """
    folder.write_text(folder.report.name, render(folder))


def render(folder: RunFolder) -> str:
    """Return the page of a cross-validation.

    Raises:
        RunError: a file of a fold is damaged.
    """
    division = Division.read(folder)
    folds = read_folds(folder, division)
    found = spreads(folds)
    ended = sum(bool(fold.summary) for fold in folds)
    try:
        recipe = folder.recipe.read_text("utf-8", errors="replace")
    except FileNotFoundError:
        recipe = ""
    content: dict[str, Any] = {
        "name": folder.name,
        "kind": "Cross-validation",
        "source": "the files of this cross-validation",
        "lede": lede(division, found),
        "banner": ""
        if ended == len(folds)
        else f"{ended} of {len(folds)} folds are finished; it goes on with: "
        f"etude tune --resume {folder.path}",
        "figures": [_figure(spread) for spread in found],
        "results": [table for table in (spread_table(found), fold_table(folds, found)) if table],
        "recipe": recipe,
        "sections": [("results", "Results"), ("setup", "Recipe")],
    }
    return render_page("folds.html", content)


def lede(division: Division, found: Sequence[Spread]) -> str:
    """Return in a sentence what it came to; of no two folds, what it is."""
    times = f", {division.repeats} times" if division.repeats > 1 else ""
    said = f"{division.folds} folds{times}"
    if not found:
        return f"{said}."
    main = found[1] if len(found) > 1 else found[0]
    return (
        f"{said}: {main.metric.title} {main.metric.text(main.mean)} on average, 95 % from "
        f"{main.metric.text(main.low)} to {main.metric.text(main.high)}."
    )


def spread_table(found: Sequence[Spread]) -> Table | None:
    """Return each metric's mean, spread and interval; None of no two folds."""
    if not found:
        return None
    rows = [
        (
            spread.metric.title,
            spread.metric.text(spread.before),
            spread.metric.text(spread.mean),
            spread.metric.error_text(spread.deviation).removeprefix("±"),
            spread.metric.error_text(spread.error).removeprefix("±"),
            f"{spread.metric.text(spread.low)} to {spread.metric.text(spread.high)}",
        )
        for spread in found
    ]
    columns = ("", "before", "mean", "standard deviation", "standard error", "95 %")
    return Table("Over the folds", columns, rows, note=EXPLAINED)


def fold_table(folds: Sequence[Fold], found: Sequence[Spread]) -> Table:
    """Return a row a fold."""
    several = max(fold.repeat for fold in folds) > 1
    rows = [
        (
            f"{fold.repeat}.{fold.number}" if several else str(fold.number),
            STATES.get(fold.state, "at work"),
            q.number(fold.trained or None),
            q.number(fold.held_out or None),
            *(spread.metric.text(fold.summary.get(spread.metric.name)) for spread in found),
            q.duration(fold.summary.get("train_seconds")),
        )
        for fold in folds
    ]
    columns = ("fold", "state", "trained on", "held out", *(s.metric.title for s in found), "time")
    return Table("Every fold", columns, rows, left=frozenset({1}), shown=50)


def _figure(spread: Spread) -> Figure:
    metric = spread.metric
    return Figure(
        metric.title[:1].upper() + metric.title[1:],
        metric.text(spread.mean),
        f"over {spread.count} folds, 95 % from {metric.text(spread.low)} to "
        f"{metric.text(spread.high)}",
        before="" if spread.before is None else metric.text(spread.before),
        change="" if spread.before is None else metric.change(spread.before, spread.mean),
        better=spread.before is None or metric.better(spread.mean, spread.before),
    )
