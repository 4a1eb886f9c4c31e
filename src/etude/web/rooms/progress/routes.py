"""What was solved and when, and how well each concept is known."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from etude.app.record import record_of
from etude.web.bench import Bench
from etude.web.pages import render
from etude.web.room import Room

router = APIRouter(prefix="/progress")
ROOM = Room("progress", "Progress", "/progress", [router], Path(__file__).parent)


@router.get("")
def index(request: Request, bench: Bench) -> HTMLResponse:
    """Show the user's record."""
    record = record_of(bench)
    return render(request, "progress/index.html", record=record, today=bench.progress.today())
