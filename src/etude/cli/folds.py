"""`etude tune --folds`: a cross-validation, as it goes and as it ended."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from etude.app.stopping import stop_on_signal

if TYPE_CHECKING:
    from etude.app.folds import PlannedFolds
    from etude.tuning.cross_validation.results import Fold
    from etude.tuning.runs.folder import RunFolder


def run_folds(plan: PlannedFolds, runs: Path, *, quiet: bool, as_json: bool) -> None:
    """Run a cross-validation and print it; exit with 130 where it was stopped."""
    from etude.app import folds as service

    view = FoldsView(quiet=quiet or as_json)
    with stop_on_signal(view.on_message, "fold") as stopping:
        try:
            folder, finished = service.start(plan, base=runs, view=view, stopping=stopping)
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
        finally:
            view.close()
    if not finished:
        typer.echo(f"stopped; resume with: etude tune --resume {folder.path}", err=True)
        raise typer.Exit(130)
    if as_json:
        typer.echo(folder.summary.read_text("utf-8"), nl=False)
        return
    print_folds(folder)


def print_folds(folder: RunFolder) -> None:
    """Print the folds of a cross-validation, and each metric over them."""
    from etude.cli.runs import print_table
    from etude.tuning.cross_validation.page import EXPLAINED, fold_table, spread_table
    from etude.tuning.cross_validation.results import Division, read_folds, spreads

    folds = read_folds(folder, Division.read(folder))
    found = spreads(folds)
    for table in (fold_table(folds, found), spread_table(found)):
        if table is not None:
            print_table(table.columns, table.rows)
            typer.echo()
    typer.echo(EXPLAINED)
    typer.echo(f"report: {folder.report}")


class FoldsView:
    """Shows a cross-validation as it goes: a line a fold, and on a terminal what it does now.

    Args:
        quiet: show nothing.
    """

    def __init__(self, *, quiet: bool) -> None:
        from etude.tuning.report.live import stderr_console

        self.quiet = quiet
        self.console = stderr_console()
        self._status: Any = None
        self._said: set[tuple[int, int]] | None = None

    def on_folds(self, folds: list[Fold]) -> None:
        """Say which folds have finished since the last call."""
        from etude.tuning.metrics.metric import metrics_of

        ended = {(fold.repeat, fold.number): fold for fold in folds if fold.summary}
        if self._said is None:
            self._said = set(ended)
            if ended:
                self.on_message(f"{len(ended)} of {len(folds)} folds are finished already")
        for key in [key for key in ended if key not in self._said]:
            self._said.add(key)
            summary = ended[key].summary
            figures = ", ".join(
                f"{metric.title} {metric.text(summary[metric.name])}"
                for metric in metrics_of(summary, "")[:3]
            )
            self.on_message(f"{len(ended)} of {len(folds)} folds: {figures}")

    def on_event(self, repeat: int, number: int, name: str, figures: dict[str, Any]) -> None:
        """Show what a fold's process does."""
        from etude.core import units as q

        if self.quiet or not self.console.is_terminal:
            return
        where = f"fold {number}" if repeat == 1 else f"repeat {repeat}, fold {number}"
        if name == "stage":
            text = f"{where}: {figures['label'].lower()}"
        elif name == "step":
            step, total = figures["step"], figures["total_steps"]
            text = f"{where}: step {step:,} of {total:,}, loss {q.loss(figures['loss'])}"
        else:
            return
        if self._status is None:
            self._status = self.console.status(text)
            self._status.start()
        self._status.update(text)

    def on_message(self, text: str) -> None:
        """Show a line."""
        if not self.quiet:
            self.console.print(text, markup=False, soft_wrap=True)

    def close(self) -> None:
        """Release the terminal."""
        if self._status is not None:
            self._status.stop()
