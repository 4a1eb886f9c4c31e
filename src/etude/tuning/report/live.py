"""Live terminal output: the training view, and progress bars.

On a terminal the view is redrawn in place, with messages scrolling above it. Elsewhere (a file, a
pipe, a job's log) a plain line is printed at intervals.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as Bars
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from etude.core import units as q
from etude.tuning.metrics.smoothing import smooth
from etude.tuning.report.series import smoothing, sparkline

RATE_WINDOW = 20
"""Number of recent steps used to estimate the remaining time."""

BAR_FROM = 80
"""Minimum terminal width for a bar, in columns."""

Record = dict[str, Any]


@cache
def stderr_console() -> Console:
    """Return the shared console for progress output on stderr; stdout is for results.

    It is shared, because a bar drawn during the training view must coordinate with it.
    """
    return Console(stderr=True, highlight=False)


class LiveView:
    """Live view of training: step, loss, learning rate, speed, remaining time, memory.

    with LiveView(total_steps=320) as view:
        view.update(record)       # a training record of metrics.jsonl
        view.evaluation(record)   # an evaluation record
        view.message("Checkpoint at step 40")
    """

    def __init__(
        self,
        total_steps: int,
        *,
        done: int = 0,
        earlier: Sequence[Mapping[str, Any]] = (),
        console: Console | None = None,
        quiet: bool = False,
        line_every: float = 10.0,
    ) -> None:
        """Prepare the view; entering it starts drawing.

        Args:
            total_steps: optimiser steps of the whole run, including those before a resume.
            done: steps before a resume.
            earlier: records of metrics.jsonl up to that step.
            console: output console; None: standard error.
            quiet: show nothing.
            line_every: seconds between plain lines without a terminal.
        """
        self.total_steps = total_steps
        self.quiet = quiet
        self.line_every = line_every
        self.console = console or stderr_console()
        self._losses: list[float | None] = []
        self._times: deque[tuple[int, float]] = deque(maxlen=RATE_WINDOW + 1)
        self._evaluations: list[Record] = []
        self._last: Record = {"step": done} if done else {}
        for record in earlier:
            if "loss" in record:
                self._remember(dict(record))
            elif "eval_loss" in record:
                self._evaluations.append(dict(record))
        self._printed_at: float | None = None
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if not self.quiet and self.console.is_terminal:
            self._live = Live(
                get_renderable=self._draw,
                console=self.console,
                refresh_per_second=4,
                redirect_stdout=False,
            )
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave the last state on the screen and release the terminal."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def update(self, record: Record) -> None:
        """Show a training record: step, loss, lr, grad_norm, tokens_per_s, rss, seconds."""
        self._remember(record)
        seconds = record.get("seconds")
        if self._live is not None or self.quiet:
            return
        now = float(seconds or 0.0)
        due = self._printed_at is None or now - self._printed_at >= self.line_every
        if due or record["step"] >= self.total_steps:
            self._printed_at = now
            self.console.print(self._plain_line(), soft_wrap=True)

    def _remember(self, record: Record) -> None:
        self._last = record
        self._losses.append(record.get("loss"))
        if (seconds := record.get("seconds")) is not None:
            self._times.append((int(record["step"]), float(seconds)))

    def evaluation(self, record: Record) -> None:
        """Show an evaluation record: step, eval_loss."""
        self._evaluations.append(record)
        if self._live is None:
            self.message(f"step {record['step']}  {self._evaluation_text()}")

    def message(self, text: str) -> None:
        """Print a permanent line, above the view if there is one."""
        if not self.quiet:
            self.console.print(escape(text), soft_wrap=True)

    @property
    def seconds_left(self) -> float | None:
        """Remaining training time estimated from the last steps; None before the first."""
        if len(self._times) < 2:
            return None
        (first_step, first), (last_step, last) = self._times[0], self._times[-1]
        if last_step == first_step:
            return None
        return (self.total_steps - last_step) * (last - first) / (last_step - first_step)

    @property
    def _smoothed(self) -> float | None:
        return smooth(self._losses, smoothing(self.total_steps))[-1]

    def _evaluation_text(self) -> str:
        first, last = self._evaluations[0], self._evaluations[-1]
        text = f"evaluation loss {q.loss(last.get('eval_loss'))}"
        if len(self._evaluations) > 1:
            text += f" ({q.change(first.get('eval_loss'), last.get('eval_loss'))})"
        return text

    def _plain_line(self) -> str:
        record = self._last
        return "  ".join(
            (
                f"step {record['step']}/{self.total_steps}",
                f"loss {q.loss(self._smoothed)} (last {q.loss(record.get('loss'))})",
                f"lr {q.rate(record.get('lr'))}",
                f"{q.number(record.get('tokens_per_s'))} tokens/s",
                q.size(record.get("rss")),
                f"{q.clock(self.seconds_left)} left",
            )
        )

    def _draw(self) -> Group:
        record = self._last
        step = int(record.get("step", 0))
        share = step / self.total_steps if self.total_steps else 1.0
        figures = (
            f"step {step}/{self.total_steps}",
            Text(f"{share * 100:.0f} %", style="bold"),
            f"{q.clock(float(record.get('seconds') or 0.0))} elapsed",
            Text(f"{q.clock(self.seconds_left)} left", style="bold"),
        )
        head: Table | Text
        if self.console.width >= BAR_FROM:
            bar = ProgressBar(
                total=max(1, self.total_steps),
                completed=step,
                width=min(40, self.console.width - 60),
            )
            head = Table.grid(padding=(0, 2, 0, 0))
            head.add_row(Text("Training", style="bold"), bar, *figures)
        else:
            head = Text("  ", no_wrap=True, overflow="ellipsis").join(map(Text.assemble, figures))
        if not self._losses:
            return Group(head)
        losses = Text.assemble(
            ("loss ", "dim"),
            (q.loss(self._smoothed), "bold"),
            "  ",
            (self._sparkline(24), "cyan"),
            ("  last ", "dim"),
            q.loss(record.get("loss")),
            no_wrap=True,
            overflow="ellipsis",
        )
        if self._evaluations:
            losses.append(f"   {self._evaluation_text()}", "dim")
        rest = Text(no_wrap=True, overflow="ellipsis")
        for label, value in (
            ("lr ", q.rate(record.get("lr"))),
            ("gradient norm ", q.loss(record.get("grad_norm"))),
            ("tokens/s ", q.number(record.get("tokens_per_s"))),
            ("memory ", q.size(record.get("rss"))),
        ):
            rest.append(label, "dim").append(f"{value}   ")
        return Group(head, losses, rest)

    def _sparkline(self, width: int) -> str:
        """Return the loss curve so far; empty if the terminal cannot show block characters."""
        return sparkline(self._losses, width) if "utf" in self.console.encoding else ""


class TerminalProgress:
    """A `Progress` with a bar on a terminal, and plain lines for long work elsewhere.

    A bar is removed when its work is done; work longer than `patience` leaves one line.
    """

    def __init__(
        self,
        console: Console | None = None,
        *,
        quiet: bool = False,
        patience: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare; nothing is drawn before `start`.

        Args:
            console: output console; None: standard error.
            quiet: show nothing.
            patience: seconds after which work leaves a permanent line.
            clock: returns the time in seconds.
        """
        self.console = console or stderr_console()
        self.quiet = quiet
        self.patience = patience
        self._clock = clock
        self._label: str | None = None
        self._unit = ""
        self._total: int | None = None
        self._done = 0
        self._began = 0.0
        self._announced = False
        self._bars: Bars | None = None

    def start(self, label: str, total: int | None, unit: str = "") -> None:
        """Begin a task, ending the previous one. See `Progress`."""
        self.finish()
        self._label, self._total, self._unit = label, total, unit
        self._done, self._began, self._announced = 0, self._clock(), False
        if self.quiet or not self.console.is_terminal:
            return
        self._bars = Bars(*_columns(total, unit), console=self.console, transient=True)
        self._bars.add_task(escape(label), total=total)
        self._bars.start()

    def advance(self, n: int = 1) -> None:
        """Report `n` more completed units."""
        self._done += n
        if self._bars is not None:
            self._bars.advance(self._bars.task_ids[0], n)
        elif not self._announced and self._clock() - self._began >= self.patience:
            # Once, so that a log shows what the process is waiting for.
            self._announced = True
            self._print(f"{self._label} …")

    def finish(self) -> None:
        """End the task, if there is one."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None
        if self._label is None:
            return
        took = self._clock() - self._began
        if took >= self.patience:
            done = q.size(self._done) if self._unit == "B" else f"{self._done:,} {self._unit}"
            what = f"{self._label}: {done.strip()}" if self._done else self._label
            self._print(f"{what} in {q.duration(took)}")
        self._label = None

    def _print(self, text: str) -> None:
        if not self.quiet:
            self.console.print(escape(text), soft_wrap=True)


def _columns(total: int | None, unit: str) -> list[ProgressColumn]:
    columns: list[ProgressColumn] = [TextColumn("{task.description}"), BarColumn(bar_width=32)]
    if unit == "B":
        columns += [DownloadColumn(), TransferSpeedColumn()]
    elif total is None:
        columns.append(TextColumn(f"{{task.completed:,}} {escape(unit)}"))
    else:
        columns.append(TextColumn(f"{{task.completed:,}}/{{task.total:,}} {escape(unit)}"))
    if total is not None:
        columns.append(TimeRemainingColumn(compact=True))
    return columns
