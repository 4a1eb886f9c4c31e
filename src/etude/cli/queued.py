"""What a command says of a run, or a search, that it has put into the queue."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from etude.tuning.runs.folder import RunFolder


def say_queued(folder: RunFolder) -> None:
    """Start the next job, and say where the new one stands."""
    from etude.app.jobs import advance
    from etude.app.run_queue import read_queue

    base = folder.path.parent
    started = advance(base)
    typer.echo(folder.path)
    if started is not None and started.path == folder.path:
        said = f"started; its output is in {folder.log}"
    else:
        waiting = [run.name for run in read_queue(base).waiting]
        place = waiting.index(folder.name) + 1 if folder.name in waiting else 1
        said = f"queued, number {place} of those that wait"
    typer.echo(f"{said}; see: etude runs queue", err=True)
