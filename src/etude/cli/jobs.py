"""`etude runs queue | stop | remove`: the queue of `etude tune --queue`, and runs in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from etude.cli.complete import complete_run
from etude.cli.runs import RUNS, AsJson, Base, print_table, runs_app


@runs_app.command(
    epilog="Examples:\n\n`etude runs queue`\n\n`etude runs queue --at-once 2`\n\n"
    "`etude runs queue --json`"
)
def queue(
    at_once: Annotated[
        int | None,
        typer.Option(min=1, help="From now on, let this many queued runs train at the same time."),
    ] = None,
    runs: Base = RUNS,
    as_json: AsJson = False,
) -> None:
    """Show what trains and what waits, and start what is next.

    A run starts when the one before it ends. If that was killed, the next reader of the queue
    starts it: this command, `etude runs list` or the web app.
    """
    from etude.app.jobs import advance
    from etude.app.run_queue import read_queue, set_at_once
    from etude.app.runs import facts_of

    if at_once is not None:
        set_at_once(at_once, runs)
    started = advance(runs)
    now = read_queue(runs)
    facts = [facts_of(folder, now) for folder in (*now.active, *now.waiting)]
    if as_json:
        typer.echo(
            json.dumps(
                {
                    "at_once": now.at_once,
                    "started": started.name if started else None,
                    "runs": [fact.as_json() for fact in facts],
                },
                indent=2,
            )
        )
        return
    if started is not None:
        typer.echo(f"started {started.name}")
    if not facts:
        typer.echo("nothing trains and nothing waits; queue a run with: etude tune RECIPE --queue")
        return
    rows = [
        (
            fact.name,
            fact.state,
            "" if fact.place is None else str(fact.place),
            f"{fact.steps}/{fact.total_steps}" if fact.total_steps else "",
            fact.damaged or fact.detail or fact.next_step,
        )
        for fact in facts
    ]
    print_table(("name", "state", "place", "steps", ""), rows, left=2, last_left=True)


@runs_app.command(
    epilog="Examples:\n\n`etude runs stop latest`\n\n`etude runs stop docstrings-2026 --now`"
)
def stop(
    name: Annotated[
        str,
        typer.Argument(
            help="`latest`, a name, the start of one, or a path.", autocompletion=complete_run
        ),
    ],
    now: Annotated[
        bool,
        typer.Option(
            "--now", help="End a run that is stopping already, without saving the steps since."
        ),
    ] = False,
    runs: Base = RUNS,
) -> None:
    """Stop a run: it saves a checkpoint and can be resumed. A queued one leaves the queue."""
    from etude.app.jobs import stop_job

    asked = stop_job(name, runs, now=now)
    if asked.from_queue:
        typer.echo(f"{asked.folder.path} has left the queue")
    else:
        typer.echo(
            f"{asked.folder.path} was asked to stop; it saves a checkpoint at the next safe point"
        )


@runs_app.command(epilog="Examples:\n\n`etude runs remove docstrings-2026 --yes`")
def remove(
    name: Annotated[
        str,
        typer.Argument(
            help="`latest`, a name, the start of one, or a path.", autocompletion=complete_run
        ),
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    runs: Base = RUNS,
) -> None:
    """Delete one run, its adapter and its checkpoints; never one that is at work."""
    import sys

    from etude.app.jobs import remove_job
    from etude.app.runs import size_of
    from etude.core import units as q
    from etude.core.errors import RunError
    from etude.tuning.runs.folder import find_run

    folder = find_run(name, runs)
    if not yes:
        if not sys.stdin.isatty():
            raise RunError(f"{folder.path} would be removed; add --yes to do it unasked")
        typer.confirm(f"Remove {folder.path}, {q.size(size_of(folder))}?", abort=True)
    freed = remove_job(str(Path(folder.path)), runs)
    typer.echo(f"removed {folder.path}  {q.size(freed)}")
