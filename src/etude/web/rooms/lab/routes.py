"""The list of runs and the queue; comparing runs. See `run_routes` and `draft_routes`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from etude.app.run_news import run_named
from etude.app.run_queue import read_queue
from etude.app.runs import compare_runs, find_runs_to_compare, list_facts
from etude.web.bench import Bench
from etude.web.events import Source, positions
from etude.web.pages import render
from etude.web.room import Room
from etude.web.rooms.lab import (
    chat_routes,
    draft_routes,
    export_routes,
    run_routes,
    search_routes,
)
from etude.web.rooms.lab.curves import compared_curves
from etude.web.rooms.lab.topics import (
    open_chat,
    open_draft,
    open_log,
    open_metrics,
    open_runs,
    open_trials,
    open_work,
)

router = APIRouter(prefix="/lab")
ROOM = Room(
    "lab",
    "Lab",
    "/lab",
    [
        router,
        draft_routes.router,
        run_routes.router,
        export_routes.router,
        chat_routes.router,
        search_routes.router,
    ],
    Path(__file__).parent,
    [
        Source("runs", open_runs),
        Source("run", open_metrics),
        Source("log", open_log),
        Source("draft", open_draft),
        Source("chat", open_chat),
        Source("work", open_work),
        Source("trials", open_trials),
    ],
)


@router.get("")
def index(request: Request, bench: Bench) -> HTMLResponse:
    """List all runs, the newest first."""
    at = positions(request, "runs")
    runs = list_facts(bench.runs)[::-1]
    return render(
        request, "lab/index.html", runs=runs, queue=read_queue(bench.runs), folder=bench.runs, at=at
    )


@router.get("/compare")
def compare(
    request: Request, bench: Bench, run: Annotated[list[str] | None, Query(max_length=20)] = None
) -> HTMLResponse:
    """Compare runs: curves, figures, what differs between the recipes, and sample by sample."""
    folders = find_runs_to_compare(
        [str(run_named(bench.runs, name)) for name in run or ()], bench.runs
    )
    return render(
        request,
        "lab/compare.html",
        compared=compare_runs(folders),
        charts=compared_curves(folders),
        names=[folder.name for folder in folders],
    )
