"""The list of runs, kept up to date by the topic `runs`; `run/NAME` is the metrics of one."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from etude.app.runs import list_facts
from etude.web.bench import Bench
from etude.web.events import Source
from etude.web.pages import render
from etude.web.room import Room
from etude.web.rooms.lab.topics import open_metrics, open_runs

router = APIRouter(prefix="/lab")
ROOM = Room(
    "lab",
    "Lab",
    "/lab",
    [router],
    Path(__file__).parent,
    [Source("runs", open_runs), Source("run", open_metrics)],
)


@router.get("")
def index(request: Request, bench: Bench) -> HTMLResponse:
    """List all runs, the newest first."""
    runs = list_facts(bench.runs)[::-1]
    return render(request, "lab/index.html", runs=runs, folder=bench.runs)
