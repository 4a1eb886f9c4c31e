"""The newest papers, shelf by shelf."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import HTMLResponse

from etude.web.bench import Bench
from etude.web.pages import render
from etude.web.room import Room

router = APIRouter(prefix="/papers")
ROOM = Room("papers", "Papers", "/papers", [router], Path(__file__).parent)
PAGE = 40


@router.get("")
def index(request: Request, bench: Bench, shelf: str = "") -> HTMLResponse:
    """List the newest papers of all shelves, or of one."""
    shelves = bench.settings().shelves
    if shelf and shelf not in shelves:
        raise HTTPException(404, f"There is no shelf {shelf!r}.")
    papers = bench.library.newest(shelves[shelf] if shelf else None, most=PAGE)
    return render(
        request,
        "papers/index.html",
        papers=papers,
        total=bench.library.count(),
        shelves=shelves,
        shelf=shelf,
    )
