"""The first page: what to do next, the day's problem, what runs, papers for this reader."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from etude.app.run_queue import read_queue
from etude.app.today import runs_today, today
from etude.app.workbench import Workbench
from etude.web.bench import Bench
from etude.web.events import positions
from etude.web.pages import render
from etude.web.room import Room

router = APIRouter()
ROOM = Room("today", "Today", "/", [router], Path(__file__).parent)


@router.get("/")
def index(request: Request, bench: Bench) -> HTMLResponse:
    """Show what to do next."""
    at = positions(request, "runs", "papers", *_followed(bench))
    return render(request, "today/index.html", today=today(bench), at=at)


@router.get("/today/runs")
def runs(request: Request, bench: Bench) -> HTMLResponse:
    """Show the runs alone: what the first page asks for again as they go on."""
    at = positions(request, "runs", *_followed(bench))
    return render(request, "today/runs.html", runs=runs_today(bench), at=at)


def _followed(bench: Workbench) -> list[str]:
    """Return the topics of the runs at work or waiting, each of which is followed by itself."""
    queue = read_queue(bench.runs)
    return [f"run/{run.name}" for run in (*queue.active, *queue.waiting)]
