"""The first page: the day's problem, what runs, the newest papers, the streak."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from etude.app.today import today
from etude.web.bench import Bench
from etude.web.pages import render
from etude.web.room import Room

router = APIRouter()
ROOM = Room("today", "Today", "/", [router], Path(__file__).parent)


@router.get("/")
def index(request: Request, bench: Bench) -> HTMLResponse:
    """Show what to do next."""
    return render(request, "today/index.html", today=today(bench))
