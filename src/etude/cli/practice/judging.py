"""`etude practice judge`: judge submissions on one machine or several."""

from __future__ import annotations

import signal
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from etude.app.practice import open_pool
from etude.cli.practice import practice
from etude.cli.practice.context import Require, Shelf

if TYPE_CHECKING:
    from etude.practice.problem import Problem
    from etude.practice.worker import Bench


@practice.command(
    "judge",
    epilog="Example:\n\n`etude practice judge --workers 2 --require namespaces`"
    "\n\nAfter `ray start --head` on one machine and `ray start --address=…` on the others:"
    "\n\n`etude practice judge --ray auto --judges 8`",
)
def run_judge(
    workers: Annotated[
        int,
        typer.Option(
            min=1,
            max=64,
            help="Number of submissions judged at the same time; with --ray, by each judge.",
        ),
    ] = 2,
    ray: Annotated[
        str | None,
        typer.Option(help="Judge on a Ray cluster: auto, host:port, ray://… or local."),
    ] = None,
    judges: Annotated[
        int,
        typer.Option(
            min=1, max=1000, help="With --ray: number of judges, spread over the machines."
        ),
    ] = 1,
    require: Require = None,
    shelf: Shelf = None,
    idle: Annotated[
        float | None,
        typer.Option(min=1, help="End after so many seconds with nothing to judge."),
    ] = None,
) -> None:
    """Judge submissions until Ctrl-C."""
    from etude.practice.judge_process import announced
    from etude.practice.problem import find_problem
    from etude.practice.session import recorder
    from etude.practice.worker import Workers
    from etude.store.engine import open_store

    def find(slug: str) -> Problem:
        return find_problem(slug, shelf)

    engine = open_store()
    stop = False

    def leave(*_: object) -> None:
        nonlocal stop
        stop = True

    with _bench(require, workers, ray, judges) as (bench, described):
        # After Ray has started, which sets handlers of its own.
        signal.signal(signal.SIGTERM, leave)
        signal.signal(signal.SIGINT, leave)
        typer.echo(f"isolation: {described}")
        judging = Workers(engine, bench, find, recorder(engine, find))
        with judging, announced(bench.slots, described):
            typer.echo(
                f"judging, {bench.slots} at a time; Ctrl-C finishes what is begun and leaves"
            )
            while not stop and (idle is None or judging.idle_seconds() < idle):
                time.sleep(0.2)


@contextmanager
def _bench(
    require: list[str] | None, workers: int, ray: str | None, judges: int
) -> Generator[tuple[Bench, str]]:
    """Start a judge on this machine or on a cluster, and describe its isolation."""
    if ray is not None:
        from etude.practice.cluster import RayJudges

        layers = {"require": require} if require else {}
        with RayJudges(ray, judges, workers, **layers) as cluster:
            yield cluster, cluster.describe()
        return
    from etude.practice.judge.judge import Judge

    with open_pool(require, workers) as pool:
        yield Judge(pool), pool.level.describe()
