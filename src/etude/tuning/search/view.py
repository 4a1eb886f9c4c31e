"""The terminal's view of a search: a table of trials, the one at work, and the time left."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from etude.core import units as q
from etude.tuning.config.reference import as_yaml
from etude.tuning.report.live import stderr_console
from etude.tuning.search.record import SearchRecord
from etude.tuning.search.settings import COSTS, SearchSettings
from etude.tuning.search.trial import OVER, STATES, Trial

SHOWN = 12
"""Trials in the table: the last ones, and the best."""

STYLES = {
    "running": "cyan",
    "paused": "",
    "finished": "green",
    "dropped": "dim",
    "failed": "red",
    "diverged": "red",
    "skipped": "dim",
    "no_memory": "dim",
}


class SearchView:
    """Shows a search as it goes: redrawn in place on a terminal, else a line a trial.

    Args:
        settings: of the search.
        keys: dotted keys that are searched.
        quiet: show nothing.
        console: output console; None: standard error.
    """

    def __init__(
        self,
        settings: SearchSettings,
        keys: Sequence[str],
        *,
        quiet: bool = False,
        console: Console | None = None,
    ) -> None:
        self.settings = settings
        self.keys = list(keys)
        self.quiet = quiet
        self.console = console or stderr_console()
        self._record: SearchRecord | None = None
        self._doing = ""
        self._said: set[tuple[int, str, float]] = set()
        self._first: bool = True
        self._began = time.monotonic()
        self._live: Live | None = None

    def open(self) -> None:
        """Begin to draw."""
        if not self.quiet and self.console.is_terminal:
            self._live = Live(console=self.console, auto_refresh=False, transient=True)
            self._live.start()

    def close(self) -> None:
        """Release the terminal."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def on_record(self, record: SearchRecord) -> None:
        """Show the trials, of which one has changed."""
        self._record, self._doing = record, ""
        if self._live is None:
            self._lines(record)
        self._draw()

    def on_event(self, number: int, name: str, figures: dict[str, Any]) -> None:
        """Show what a trial's process does."""
        if name == "stage":
            self._doing = f"trial {number}: {figures['label'].lower()}"
        elif name == "step":
            self._doing = (
                f"trial {number}: step {figures['step']:,} of {figures['total_steps']:,}, "
                f"loss {q.loss(figures['loss'])}"
            )
        self._draw()

    def on_message(self, text: str) -> None:
        """Show a line."""
        if not self.quiet:
            console = self._live.console if self._live is not None else self.console
            console.print(escape(text), soft_wrap=True)

    def _draw(self) -> None:
        if self._live is not None and self._record is not None:
            table = trial_table(self._record, self.keys, self.console.width, limit=SHOWN)
            foot = Text(self._footer(self._record), style="dim")
            self._live.update(Group(table, foot), refresh=True)

    def _footer(self, record: SearchRecord) -> str:
        parts = [f"{record.begun} of {self.settings.trials} trials"]
        if left := self.seconds_left(record):
            parts.append(f"about {q.duration(left)} left")
        if self._doing:
            parts.append(self._doing)
        return " · ".join(parts)

    def seconds_left(self, record: SearchRecord) -> float | None:
        """Return an estimate of the time left: trials to come at the mean cost of those begun."""
        spent = sum(trial.seconds for trial in record.trials)
        others = [trial for trial in record.trials if trial.number and trial.seconds]
        if not spent:
            return None
        each = sum(trial.seconds for trial in others) / len(others) if others else spent
        left = max(0, self.settings.trials - record.begun) * each
        if self.settings.minutes is not None:
            left = min(left, self.settings.minutes * 60 - (time.monotonic() - self._began))
        return max(0.0, left)

    def _lines(self, record: SearchRecord) -> None:
        """Print a line for each trial that has got further; without a terminal."""
        for trial in record.trials:
            state = (trial.number, trial.state, trial.share)
            if state in self._said or trial.state == "running":
                continue
            self._said.add(state)
            # What an earlier process did is in the files; only what is new is news.
            if not self._first:
                self.on_message(_line(trial, record))
        self._first = False


def trial_table(
    record: SearchRecord, keys: Sequence[str], width: int, *, limit: int | None = None
) -> Table:
    """Return the trials as a table; the best is marked.

    Args:
        record: of the search.
        keys: dotted keys that are searched.
        width: of the terminal, in columns.
        limit: the last so many, and the best.
    """
    trials = record.trials
    best = record.selection.best
    if limit is not None and len(trials) > limit:
        trials = [t for t in trials if t.number == best or t.number >= len(trials) - limit + 1]
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("trial", justify="right")
    table.add_column("state", no_wrap=True)
    table.add_column("trained", justify="right", no_wrap=True)
    title = record.metric.title
    if record.rung_metric is not None and record.rung_metric.name != record.metric.name:
        title += f" ({record.rung_metric.title} at rungs)"
    table.add_column(title, justify="right")
    for name in record.against:
        table.add_column(COSTS[name], justify="right")
    table.add_column("time", justify="right", no_wrap=True)
    each = width >= 70 + 12 * len(keys)
    if each:
        for key in keys:
            table.add_column(key.rpartition(".")[2], justify="right")
    else:
        table.add_column("values", no_wrap=True, overflow="ellipsis")
    for trial in trials:
        marked = "★ " if trial.number == best else ""
        shown = written_values(trial, keys)
        cells = [
            f"{marked}{trial.number}",
            Text(STATES[trial.state], style=STYLES[trial.state]),
            "" if trial.state in OVER else f"{100 * trial.share:.0f} %",
            metric_text(trial, record),
            *(cost_text(name, trial.figures.get(name)) for name in record.against),
            q.duration(trial.seconds) if trial.seconds else "",
        ]
        if each:
            cells += [shown[key] for key in keys]
        else:
            cells.append(
                " ".join(f"{k.rpartition('.')[2]}={v}" for k, v in shown.items() if v != q.UNKNOWN)
            )
        table.add_row(*cells, style="bold" if marked else "")
    return table


def metric_text(trial: Trial, record: SearchRecord) -> str:
    """Return a trial's metric as people read it, with its standard error."""
    metric = record.metric if trial.value is not None else record.rung_metric or record.metric
    if trial.last_value is None:
        return q.UNKNOWN if trial.state in OVER else ""
    said = metric.text(trial.last_value)
    return f"{said} {error_text(trial, record)}".strip()


def error_text(trial: Trial, record: SearchRecord) -> str:
    """Return the standard error of a finished trial: `±1.2`; empty where it is not known."""
    return record.metric.error_text(trial.error)


def cost_text(name: str, value: float | None) -> str:
    """Return a cost as people read it."""
    return q.duration(value) if name.endswith("seconds") else q.size(value)


def written_values(trial: Trial, keys: Sequence[str]) -> dict[str, str]:
    """Return a trial's values as people read them, by key; `–` where one is not searched."""
    return {
        key: value_text(key, trial.values[key]) if key in trial.values else q.UNKNOWN
        for key in keys
    }


def value_text(key: str, value: Any) -> str:
    """Return one value of a recipe as people read it: three digits of a number."""
    if isinstance(value, float):
        return q.rate(value) if key.endswith(".lr") else f"{value:.3g}"
    return as_yaml(value)


def _line(trial: Trial, record: SearchRecord) -> str:
    values = ", ".join(
        f"{key.rpartition('.')[2]} {value_text(key, value)}" for key, value in trial.values.items()
    )
    if trial.state in OVER:
        return f"trial {trial.number} {STATES[trial.state]}: {trial.reason} ({values})"
    return (
        f"trial {trial.number} {STATES[trial.state]} after {100 * trial.share:.0f} %: "
        f"{metric_text(trial, record)} ({values})"
    )
